//! The parser of Matroska and WebM.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hark_fuzz::decode(bytes, &[(0, b"\x1a\x45\xdf\xa3")]));
