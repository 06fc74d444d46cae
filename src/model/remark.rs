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

    /// Adds this remark to others, and returns whether they changed: they don't if they have it already. Where they would be
    /// more than [`Remark::MAX`] the last one says that there are more.
    pub fn add_to(self, remarks: &mut Vec<Self>) -> bool {
        if self.message.is_empty() || remarks.contains(&self) {
            return false;
        }
        if remarks.len() < Self::MAX {
            remarks.push(self);
            return true;
        }
        let more = Self::new("more", "There is more to remark than is shown here.");
        let is_first = !remarks.contains(&more);
        remarks[Self::MAX - 1] = more;
        is_first
    }

    /// Puts this remark in the place of `earlier`, or adds it if that isn't among the others. Returns whether they changed.
    pub fn replace_in(self, earlier: Option<&Self>, remarks: &mut Vec<Self>) -> bool {
        match remarks.iter_mut().find(|remark| earlier == Some(&**remark)) {
            Some(_) if self.message.is_empty() => false,
            Some(place) => std::mem::replace(place, self.clone()) != self,
            None => self.add_to(remarks),
        }
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
        for n in 1..Remark::MAX {
            assert!(Remark::new("other", &n.to_string()).add_to(&mut remarks));
        }
        assert_eq!((remarks.len(), remarks[7].message.as_str()), (Remark::MAX, "7"));
        // One more is at least told of, once.
        for n in 8..20 {
            assert_eq!(Remark::new("other", &n.to_string()).add_to(&mut remarks), n == 8);
            assert_eq!(
                (remarks.len(), remarks[6].message.as_str(), remarks[7].code.as_str()),
                (Remark::MAX, "6", "more")
            );
        }
    }

    #[test]
    fn a_remark_that_grows_keeps_its_place() {
        let [one, two, other] = ["1 part", "2 parts", "x"].map(|message| Remark::new("left_out", message));
        let mut remarks = Vec::new();
        assert!(one.clone().replace_in(None, &mut remarks) && other.clone().add_to(&mut remarks));
        assert!(two.clone().replace_in(Some(&one), &mut remarks));
        assert!(!two.clone().replace_in(Some(&two), &mut remarks));
        assert_eq!(remarks, [two.clone(), other]);
        assert!(!Remark::new("left_out", "").replace_in(Some(&two), &mut remarks));
        // What it would replace may be of an attempt whose remarks are gone.
        assert!(one.clone().replace_in(Some(&Remark::new("left_out", "gone")), &mut remarks));
        assert_eq!(remarks[2], one);
    }
}
