//! An image file as RGB.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // A decoder's own panic is caught and reported as a broken image; it must not happen all the same.
    if let Err(error @ decode::Error::DecoderPanic { .. }) = decode::decode(bytes) {
        panic!("{error}");
    }
});
