//! The parser of Core Audio.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hark_fuzz::decode(bytes, &[(0, b"caff\0\x01\0\0")]));
