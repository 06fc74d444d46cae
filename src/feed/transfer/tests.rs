//! Tests of one upload in parts, also against a server that answers at random.

use super::*;
use proptest::prelude::*;

const MB: u64 = 1_000_000;
const LIMIT: u64 = 8 * 1024 * 1024;

fn status(status: u16) -> Answer {
    Answer { status, ..Answer::default() }
}

fn here(offset: u64) -> Answer {
    Answer { offset: Some(offset), ..status(204) }
}

fn becomes(id: &str) -> Answer {
    Answer { session: Some(id.to_owned()), ..status(204) }
}

fn load(id: &str, sent_before: bool) -> Step {
    Step::Load { id: id.to_owned(), sent_before }
}

#[test]
fn a_small_file_is_one_part() {
    let mut transfer = Transfer::new(1000, LIMIT, false);
    assert_eq!(transfer.next(), Step::Hash);
    assert_eq!(transfer.on(status(201), 0.1), Step::Send(0, 1000));
    assert_eq!(transfer.on(becomes("a"), 0.1), load("a", false));
}

#[test]
fn parts_grow_with_the_speed_and_stay_within_the_limit() {
    let mut transfer = Transfer::new(100 * MB, LIMIT, false);
    let mut step = transfer.on(status(201), 0.1);
    let mut sizes = Vec::new();
    for seconds in [0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 2.0, 9.0, 9.0] {
        let Step::Send(from, to) = step else { panic!("{step:?}") };
        sizes.push((to - from) / 1024);
        step = transfer.on(here(to), seconds);
    }
    assert_eq!(sizes, [512, 1024, 2048, 4096, 8192, 8192, 8192, 8192, 4096]);
}

#[test]
fn after_a_break_it_goes_on_from_what_is_there_in_smaller_parts() {
    let mut transfer = Transfer::new(10 * MB, LIMIT, false);
    let _ = transfer.on(status(201), 0.1);
    let _ = transfer.on(here(FIRST_PART), 2.0);
    assert_eq!([1, 2, 4].map(|_| transfer.on(status(0), 0.0)), [1, 2, 4].map(Step::Wait));
    assert_eq!(transfer.next(), Step::Ask);
    assert_eq!(transfer.on(here(FIRST_PART), 0.1), Step::Send(FIRST_PART, FIRST_PART + MIN_PART));
    let last = (0..20).map(|_| transfer.on(status(0), 0.0)).last();
    assert_eq!(last, Some(Step::Wait(30)), "a network may be away for as long as it likes");
    let _ = transfer.on(here(FIRST_PART + MIN_PART), 0.1);
    assert_eq!(transfer.on(status(0), 0.0), Step::Wait(1), "after a part that arrived, pauses begin anew");
}

#[test]
fn an_upload_of_an_earlier_page_goes_on_or_begins_anew() {
    let mut transfer = Transfer::new(10 * MB, LIMIT, true);
    assert_eq!(transfer.next(), Step::Ask);
    assert_eq!(transfer.on(here(4 * MB), 0.1), Step::Send(4 * MB, 4 * MB + FIRST_PART));
    assert_eq!(transfer.offset(), 4 * MB);
    // It may have expired.
    assert_eq!(transfer.on(status(404), 0.1), Step::Hash);
    assert_eq!((transfer.offset(), transfer.on(status(201), 0.1)), (0, Step::Send(0, FIRST_PART)));
    // Or become a session, when only the answer was lost.
    let mut transfer = Transfer::new(10 * MB, LIMIT, true);
    assert_eq!(transfer.on(becomes("a"), 0.1), load("a", false));
}

#[test]
fn a_file_that_was_sent_before_is_not_sent() {
    let mut transfer = Transfer::new(10 * MB, LIMIT, false);
    assert_eq!(transfer.on(Answer { session: Some("a".to_owned()), ..status(200) }, 0.1), load("a", true));
}

#[test]
fn a_proxy_that_refuses_large_parts_gets_smaller_ones() {
    let mut transfer = Transfer::new(100 * MB, LIMIT, false);
    let Step::Send(_, first) = transfer.on(status(201), 0.1) else { panic!() };
    let Step::Send(from, to) = transfer.on(here(first), 0.1) else { panic!() };
    assert_eq!(to - from, 2 * FIRST_PART);
    assert_eq!(transfer.on(status(413), 0.1), Step::Ask);
    // And none of the refused size any more.
    let mut here_now = first;
    for _ in 0..3 {
        assert_eq!(transfer.on(here(here_now), 0.1), Step::Send(here_now, here_now + FIRST_PART));
        here_now += FIRST_PART;
    }
    let refusals: Vec<Step> = (0..3).map(|_| transfer.on(status(413), 0.1)).collect();
    assert_eq!(refusals[0], Step::Ask);
    assert!(matches!(&refusals[1], Step::Fail(text) if text.contains("between here and Hark")), "{refusals:?}");
}

#[test]
fn refusals_end_it_and_failures_only_when_they_last() {
    let refusal = |code, retry_after| Answer { message: Some("No.".to_owned()), retry_after, ..status(code) };
    let on = |answer| Transfer::new(MB, LIMIT, true).on(answer, 0.1);
    for code in [400, 403, 413, 415, 422, 507] {
        assert_eq!(on(refusal(code, None)), Step::Fail("No.".to_owned()), "{code}");
    }
    assert_eq!(on(refusal(429, Some(60))), Step::Fail("No.".to_owned()), "as when the queue is full");
    for (code, is_begun) in [(422, false), (460, false), (429, true), (507, true)] {
        let mut transfer = Transfer::new(MB, LIMIT, true);
        assert_eq!(transfer.on(refusal(code, Some(60)), 0.1), Step::Fail("No.".to_owned()));
        assert_eq!(transfer.is_begun(), is_begun, "after {code}");
    }
    assert_eq!(on(refusal(503, Some(12))), Step::Wait(12));
    assert_eq!(on(status(401)), Step::Fail("The server answered with status 401. Try again.".to_owned()));
    let mut transfer = Transfer::new(MB, LIMIT, true);
    let steps: Vec<Step> = (0..=MAX_ERRORS).map(|_| transfer.on(refusal(500, None), 0.1)).collect();
    assert_eq!(steps.last(), Some(&Step::Fail("No.".to_owned())));
    assert!(steps[..steps.len() - 1].iter().all(|step| matches!(step, Step::Wait(_))));
}

proptest! {
    /// Against a server that loses requests and answers, or has restarted without the upload: it always comes to an end, and no
    /// byte is skipped.
    #[test]
    fn it_always_arrives(bytes in 1u64..30_000_000, limit in 300_000u64..LIMIT, fates in proptest::collection::vec(0u8..6, 0..60)) {
        let mut transfer = Transfer::new(bytes, limit, false);
        let (mut there, mut exists, mut session) = (0, false, false);
        let mut step = transfer.next();
        let mut fates = fates.into_iter();
        for _ in 0..500 {
            let fate = fates.next().unwrap_or(5);
            let answer = match &step {
                Step::Hash => { step = Step::Create; continue }
                Step::Wait(_) => { step = transfer.next(); continue }
                Step::Fail(message) => { prop_assert!(false, "{message}"); continue }
                Step::Load { .. } => break,
                // The request is lost.
                _ if fate == 0 => status(0),
                Step::Create => { (there, exists, session) = (0, true, false); if fate == 1 { status(0) } else { status(201) } }
                // Everything was lost.
                Step::Ask if fate == 2 => { exists = false; status(404) }
                Step::Ask if !exists => status(404),
                Step::Ask if session => becomes("a"),
                Step::Ask => here(there),
                Step::Send(from, to) => {
                    prop_assert!(to > from && to - from <= limit && *to <= bytes);
                    if !exists { status(404) } else if *from != there { status(409) } else {
                        there = *to;
                        session = there == bytes;
                        // The answer may be lost.
                        if fate == 1 { status(0) } else if session { becomes("a") } else { here(there) }
                    }
                }
            };
            step = transfer.on(answer, 0.5);
        }
        prop_assert_eq!(step, load("a", false));
        prop_assert!(session && there == bytes);
    }
}
