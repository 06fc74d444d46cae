//! Tests against two decoders: flate2's, which verifies checksum and length, and miniz_oxide, which shares no code with
//! the encoder.

use super::*;
use crate::model::{SegmentEvent, SessionId, Stage, State, Status, Timestamp};
use crate::server::stream::Frame;
use flate2::read::GzDecoder;
use miniz_oxide::inflate::{
    TINFLStatus,
    core::{DecompressorOxide, decompress, inflate_flags},
};
use proptest::prelude::*;
use std::io::Read;

/// What a client can decode of the bytes that have arrived, and whether the file has ended.
fn readable(packed: &[u8]) -> (Vec<u8>, bool) {
    assert_eq!(packed[..HEADER.len()], HEADER);
    let mut plain = vec![0; 1 << 20];
    let flags = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, _, len) = decompress(&mut DecompressorOxide::new(), &packed[HEADER.len()..], &mut plain, 0, flags);
    assert!(matches!(status, TINFLStatus::Done | TINFLStatus::NeedsMoreInput), "{status:?}");
    plain.truncate(len);
    (plain, status == TINFLStatus::Done)
}

/// Writes each batch; returns the compressed file.
fn write_all(batches: &[Vec<Bytes>], after_each: impl Fn(&Gzip, &[u8], &[u8])) -> Vec<u8> {
    let mut gzip = Gzip::default();
    let (mut packed, mut plain) = (Vec::new(), Vec::new());
    for batch in batches {
        packed.extend_from_slice(&gzip.write(batch.iter(), false));
        batch.iter().for_each(|event| plain.extend_from_slice(event));
        after_each(&gzip, &packed, &plain);
    }
    packed.extend_from_slice(&gzip.write([].iter(), true));
    packed
}

fn any_event() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        // Similar to each other, as events are.
        4 => "id: [0-9]{1,3}\nevent: (status|segment)\ndata: [a-f]{0,300}\n\n".prop_map(Bytes::from),
        1 => proptest::collection::vec(any::<u8>(), 0..2 * DICTIONARY_BYTES).prop_map(Bytes::from),
        1 => (any::<u8>(), 0..100_000_usize).prop_map(|(byte, n)| vec![byte; n].into()),
    ]
}

proptest! {
    #[test]
    fn every_write_can_be_read_at_once_and_the_whole_is_a_gzip_file(
        batches in proptest::collection::vec(proptest::collection::vec(any_event(), 0..4), 1..12),
    ) {
        let packed = write_all(&batches, |_, packed, plain| {
            let (read, ended) = readable(packed);
            assert!(read == plain, "{} bytes of {} can be read", read.len(), plain.len());
            assert!(!ended);
        });
        let plain: Vec<u8> = batches.iter().flatten().flatten().copied().collect();
        let (read, ended) = readable(&packed);
        prop_assert!(read == plain && ended);
        let mut read = Vec::new();
        let mut decoder = GzDecoder::new(packed.as_slice());
        decoder.read_to_end(&mut read).unwrap();
        prop_assert!(read == plain);
        prop_assert!(decoder.into_inner().is_empty(), "nothing follows the end");
        prop_assert!(GzDecoder::new(&packed[..packed.len() - 1]).read_to_end(&mut read).is_err());
    }

    #[test]
    fn a_stream_keeps_little_of_what_it_wrote(
        batches in proptest::collection::vec(proptest::collection::vec(any_event(), 0..9), 1..12),
    ) {
        write_all(&batches, |gzip, _, _| {
            assert_eq!(gzip.recent.iter().map(Bytes::len).sum::<usize>(), gzip.recent_bytes);
            assert!(gzip.recent_bytes <= DICTIONARY_BYTES && gzip.recent.capacity() <= DICTIONARY_EVENTS);
        });
    }
}

#[test]
fn a_kept_event_is_shared_unless_it_is_long() {
    let (short, long) = (Bytes::from(vec![b'a'; DICTIONARY_BYTES / 2]), Bytes::from(vec![b'b'; 10 * DICTIONARY_BYTES]));
    let mut gzip = Gzip::default();
    gzip.write([short.clone()].iter(), false);
    assert!(gzip.recent[0].as_ptr() == short.as_ptr());
    gzip.write([long.clone()].iter(), false);
    assert!(long.is_unique() && gzip.recent[0].len() == DICTIONARY_BYTES, "a few bytes must not keep a large event");
}

#[test]
fn nothing_at_all_and_nothing_after_the_end_is_a_gzip_file() {
    let mut gzip = Gzip::default();
    let packed = gzip.write([].iter(), true);
    assert_eq!(GzDecoder::new(&packed[..]).read_to_end(&mut Vec::new()).unwrap(), 0);
    assert!(gzip.write([Bytes::from_static(b"late")].iter(), true).is_empty());
}

/// The events of a session that is being transcribed, a status and a segment in turn.
fn session(id: u128, events: u32) -> Vec<Bytes> {
    const WORDS: [&str; 16] = [
        "the", "small", "white", "gate", "opened", "slowly", "and", "nobody", "had", "seen", "an", "orchard", "like",
        "that", "before", "winter",
    ];
    let id = SessionId(uuid::Uuid::from_u128(id));
    let mut random = 17_u32;
    let mut next = move |below: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % below
    };
    let mut all = Vec::new();
    for n in 0..events {
        let at = f64::from(n) * 2.3;
        let text: Vec<&str> = (0..5 + next(8)).map(|_| WORDS[next(WORDS.len())]).collect();
        let segment = SegmentEvent {
            session_id: id,
            index: n,
            start: at,
            end: at + 2.1,
            text: text.join(" "),
            unsure: vec![],
            speaker: None,
        };
        all.push(Frame::segment(&segment, u64::from(n) + 3).text().clone());
        let time = Timestamp(1_795_000_000_000 + i64::from(n) * 700 + next(300) as i64);
        let mut status = Status::new(id, State::Processing, Some(Stage::Transcribing), time);
        status.version = u64::from(n) + 4;
        status.progress = Some((at / 36.0 * 10.0).round() / 10.0);
        status.message = format!("Transcribing {}:{:02} of 60:00", at as u32 / 60, at as u32 % 60);
        status.duration_processed = at;
        status.duration_total = Some(3600.0);
        status.processing_speed = Some(3.1 + next(10) as f64 / 10.0);
        status.estimated_completion = Some(Timestamp(1_795_001_000_000 + next(100_000) as i64));
        status.segments = n + 1;
        all.push(Frame::status(&status).text().clone());
    }
    all
}

fn packed_size(events: &[Bytes]) -> usize {
    let batches: Vec<Vec<Bytes>> = events.iter().map(|event| vec![event.clone()]).collect();
    write_all(&batches, |_, _, _| {}).len()
}

#[test]
fn an_event_costs_a_fifth_of_its_text() {
    let one = session(1, 200);
    let size: usize = one.iter().map(Bytes::len).sum();
    let packed = packed_size(&one);
    assert!(packed * 5 < size, "{packed} bytes for {size}");
    // Three sessions in turn.
    let all: Vec<Vec<Bytes>> = (1..4).map(|n| session(u128::MAX / n, 200)).collect();
    let mixed: Vec<Bytes> = (0..400).flat_map(|n| all.iter().map(move |events| events[n].clone())).collect();
    let size: usize = mixed.iter().map(Bytes::len).sum();
    let packed = packed_size(&mixed);
    assert!(packed * 4 < size, "{packed} bytes for {size}");
}
