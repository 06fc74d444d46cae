//! What a file is by its first bytes, and the headers that Hark reads by itself.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = hark::server::audio::recognise(bytes);
    hark_fuzz::probe(bytes);
});
