//! The parser of Ogg with its codecs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hark_fuzz::decode(bytes, &[(0, b"OggS\0")]));
