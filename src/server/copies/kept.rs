//! Which copies are kept: the newest. Pure; called by `copies`.

use crate::{model::Timestamp, server::media::StoredCopy};
use std::cmp::Reverse;

/// The copies that have to go, so that those that stay were made after `since` and take no more than `most` bytes.
pub(super) fn too_many(mut copies: Vec<StoredCopy>, since: Timestamp, most: u64) -> Vec<StoredCopy> {
    copies.sort_by_key(|copy| Reverse(copy.made_at));
    let mut taken = 0_u64;
    copies.retain(|copy| {
        // Counted also if it goes, so that no older one stays in its place.
        taken = taken.saturating_add(copy.bytes);
        copy.made_at < since || taken > most
    });
    copies
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{SessionId, playback::CopyForm},
        server::media::CopyName,
    };
    use uuid::Uuid;

    #[test]
    fn the_oldest_copies_go_first() {
        let made = |at: i64, bytes: u64| StoredCopy {
            name: CopyName { id: SessionId(Uuid::now_v7()), track: None, form: CopyForm::Wav },
            bytes,
            version: String::new(),
            made_at: Timestamp(at),
        };
        let gone = |since, most| {
            let copies = vec![made(30, 10), made(10, 1), made(40, 20), made(20, 40)];
            let mut gone: Vec<i64> =
                too_many(copies, Timestamp(since), most).into_iter().map(|copy| copy.made_at.0).collect();
            gone.sort_unstable();
            gone
        };
        assert_eq!(gone(0, 71), Vec::<i64>::new());
        assert_eq!(gone(0, 70), [10]);
        assert_eq!(gone(0, 31), [10, 20], "the small one, too: it is older than one that went");
        assert_eq!(gone(0, 0), [10, 20, 30, 40]);
        assert_eq!(gone(20, u64::MAX), [10]);
        assert_eq!(gone(31, 71), [10, 20, 30]);
    }
}
