//! The parser of WAV.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hark_fuzz::decode(bytes, &[(0, b"RIFF"), (8, b"WAVE")]));
