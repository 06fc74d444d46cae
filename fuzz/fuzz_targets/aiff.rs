//! The parser of AIFF.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hark_fuzz::decode(bytes, &[(0, b"FORM"), (8, b"AIFF")]));
