//! An image file with as many channels as its first byte says, and a range of values.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&channels, bytes)) = bytes.split_first() else { return };
    let channels = usize::from(channels % 16 + 1);
    let pixels = decode::PixelFormat { channels, value_range: vec![[0.0, 3000.0]] };
    match decode::decode_as(bytes, &pixels) {
        Ok(decoded) => assert_eq!(decoded.image.channels(), channels),
        Err(error @ decode::Error::DecoderPanic { .. }) => panic!("{error}"),
        Err(_) => {}
    }
});
