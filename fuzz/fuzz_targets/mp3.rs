//! The parser of MP3.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hark_fuzz::decode(bytes, &[(0, b"\xff\xfb")]));
