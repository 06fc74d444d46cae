//! What people are told of a recording that could be heard though something about it was wrong. Used by `decode` and
//! `process`.

use super::is_cut;
use crate::model::{Remark, clock, duration};

/// Seconds of damage that are worth a remark.
const MIN_LOST: f64 = 0.5;

/// A recording that doesn't end where its file says; none if it does, up to rounding. `reached` is where its longest
/// track ends, and `found` where the sound ends.
pub(super) fn other_length(declared: f64, is_exact: bool, reached: f64, found: f64) -> Option<Remark> {
    // Nothing is lost where there is more, and the sound's clock may be a little faster than the container's.
    let differs = is_cut(declared, is_exact, reached) || is_cut(found, false, declared);
    let message = format!("The file says {}; it ends at {}.", clock(declared.round()), clock(found.round()));
    differs.then(|| Remark::new("other_length", &message))
}

/// A recording without its end, in a file that doesn't say how long it should be.
pub(super) fn breaks_off(found: f64) -> Remark {
    Remark::new("breaks_off", &format!("The file breaks off at {}; its end is missing.", clock(found.round())))
}

/// So many seconds could not be decoded.
pub(super) fn damaged(lost: f64) -> Option<Remark> {
    let message = format!("The file is damaged: about {} of it could not be heard.", duration(lost.max(1.0)));
    (lost >= MIN_LOST).then(|| Remark::new("damaged", &message))
}

/// Another recording in the same file, which is left out.
pub(super) fn left_out(before: f64) -> Remark {
    let message = format!(
        "After {} another recording follows in the file, which could not be heard. Send it as a file of its own.",
        clock(before.round())
    );
    Remark::new("left_out", &message)
}

/// A decoder that failed before the end of the recording.
pub(super) fn unfinished(found: f64) -> Remark {
    Remark::new(
        "damaged",
        &format!("The file is damaged after {}; what follows could not be heard.", clock(found.round())),
    )
}

/// A clock that is so far on at the start that the time before can't be silence.
pub(super) fn late_clock(begins: f64) -> Remark {
    let message =
        format!("The clock of the file begins at {}; the times here begin with its first sound.", clock(begins));
    Remark::new("late_clock", &message)
}
