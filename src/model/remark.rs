//! Remarks: what a reader should know of a recording or its transcript, though it is no error.

use serde::{Deserialize, Serialize};

/// Something that a reader of the transcript should know, such as "The file says 0:48; it ends at 0:46."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Remark {
    /// Stable, in `snake_case`.
    pub code: String,
    /// One or two sentences for people.
    pub message: String,
}

impl Remark {
    /// The maximal number of remarks on a session. Every status carries them, so they must stay few.
    pub const MAX: usize = 8;
    /// The longest code, in characters.
    const MAX_CODE: usize = 40;
    /// The longest message, in characters.
    const MAX_MESSAGE: usize = 300;

    /// Creates a remark. Cuts what is too long, and replaces control characters, because engines send remarks too.
    #[must_use]
    pub fn new(code: &str, message: &str) -> Self {
        let clean = |text: &str, max: usize| -> String {
            text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(max).collect()
        };
        Self { code: clean(code, Self::MAX_CODE), message: clean(message, Self::MAX_MESSAGE) }
    }

    /// Adds this remark to others, and returns whether they changed: they don't if they have it already, or are
    /// [`Remark::MAX`].
    pub fn add_to(self, remarks: &mut Vec<Self>) -> bool {
        let is_new = !self.message.is_empty() && remarks.len() < Self::MAX && !remarks.contains(&self);
        if is_new {
            remarks.push(self);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_are_cut_and_counted_once() {
        let long = Remark::new(&"c".repeat(100), &format!("a\0b{}", "ü".repeat(500)));
        assert_eq!((long.code.chars().count(), long.message.chars().count()), (Remark::MAX_CODE, Remark::MAX_MESSAGE));
        assert!(long.message.starts_with("a bü"));
        let mut remarks = Vec::new();
        assert!(long.clone().add_to(&mut remarks) && !long.add_to(&mut remarks));
        assert!(!Remark::new("empty", " ").add_to(&mut remarks));
        for n in 0..20 {
            Remark::new("other", &n.to_string()).add_to(&mut remarks);
        }
        assert_eq!(remarks.len(), Remark::MAX);
    }
}
