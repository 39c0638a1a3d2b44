//! Video annotations: PNG files whose pixels are object numbers.

use std::path::Path;

use decode::{LabelImage, LabelPixels};
use png::{BitDepth, ColorType};

use crate::{Error, PngError, Result};

/// An image whose pixels are object numbers. 0 is the background; 1 to 254 are objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexImage {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The number at each pixel, in row-major order.
    pub pixels: Vec<u8>,
}

impl IndexImage {
    /// Reads a PNG file of palette indices or of gray values up to 255, and ignores the colors of
    /// the palette.
    ///
    /// # Errors
    /// Returns [`Error::Read`] if the file cannot be read, and [`Error::Png`] if it has another
    /// format.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path);
        let bytes = bytes.map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::decode(&bytes).map_err(|source| Error::Png { path: path.to_owned(), source })
    }

    fn decode(bytes: &[u8]) -> std::result::Result<Self, PngError> {
        let LabelImage { width, height, pixels } = decode::read_labels(bytes)?;
        let LabelPixels::Ids(ids) = pixels else { return Err(PngError::Colors) };
        let number = |id: u16| u8::try_from(id).map_err(|_| PngError::Number { number: id });
        let pixels = ids.into_iter().map(number).collect::<std::result::Result<_, _>>()?;
        Ok(Self { width, height, pixels })
    }

    /// Writes a PNG file with the PASCAL VOC palette, which DAVIS also uses.
    ///
    /// # Errors
    /// Returns [`Error::Write`], also if there are not `width * height` pixels.
    pub fn write(&self, path: &Path) -> Result<()> {
        let failed = |source| Error::Write { path: path.to_owned(), source };
        let bytes = self.encode().map_err(|error| failed(std::io::Error::other(error)))?;
        base::write_atomic(path, &bytes).map_err(failed)
    }

    fn encode(&self) -> std::result::Result<Vec<u8>, png::EncodingError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(ColorType::Indexed);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_palette((0..=255).flat_map(color).collect::<Vec<u8>>());
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()?;
        Ok(bytes)
    }
}

/// Returns the palette color of an object. Its bits, from the lowest, go to red, green, and blue in
/// turn, and fill each channel from its highest bit down.
fn color(number: u8) -> [u8; 3] {
    [0, 1, 2].map(|channel| {
        let bit = |place: u8| number >> (3 * place + channel) & 1;
        (0..3).filter(|place| 3 * place + channel < 8).map(|place| bit(place) << (7 - place)).sum()
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn write(path: &Path, color: ColorType, depth: BitDepth, width: u32, data: &[u8]) {
        let mut encoder = png::Encoder::new(File::create(path).unwrap(), width, 1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette([9; 48].as_slice());
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
    }

    #[test]
    fn numbers_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("00000.png");
        let image = IndexImage { width: 16, height: 16, pixels: (0..=255).collect() };
        image.write(&path).unwrap();
        assert_eq!(IndexImage::read(&path).unwrap(), image);
        assert_eq!([0, 1, 2, 3, 4, 15].map(color), {
            [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [192, 128, 128]]
        });
        let short = IndexImage { pixels: vec![0; 3], ..image };
        assert!(matches!(short.write(&path), Err(Error::Write { .. })));
        assert!(IndexImage::read(&path).is_ok(), "the old file stays");
    }

    #[test]
    fn few_bits_are_numbers_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("00000.png");
        let cases: [(ColorType, BitDepth, &[u8], &[u8]); 5] = [
            (ColorType::Indexed, BitDepth::One, &[0b1010_0000], &[1, 0, 1]),
            (ColorType::Indexed, BitDepth::Two, &[0b0111_1000], &[1, 3, 2]),
            (ColorType::Indexed, BitDepth::Four, &[0x1f, 0x70], &[1, 15, 7]),
            (ColorType::Grayscale, BitDepth::One, &[0b0110_0000], &[0, 1, 1]),
            (ColorType::Grayscale, BitDepth::Eight, &[0, 255, 3], &[0, 255, 3]),
        ];
        for (color, depth, data, expected) in cases {
            write(&path, color, depth, 3, data);
            assert_eq!(IndexImage::read(&path).unwrap().pixels, expected, "{color:?} {depth:?}");
        }
    }

    #[test]
    fn colors_are_no_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("00000.png");
        write(&path, ColorType::Rgb, BitDepth::Eight, 1, &[1, 2, 3]);
        let error = base::error_chain(&IndexImage::read(&path).unwrap_err());
        assert!(error.contains("colors") && error.contains("00000.png"), "{error}");
        write(&path, ColorType::Grayscale, BitDepth::Sixteen, 1, &[1, 2]);
        let error = IndexImage::read(&path).unwrap_err();
        let source = PngError::Number { number: 258 }.to_string();
        assert!(base::error_chain(&error).ends_with(&source), "{error:?}");
        std::fs::write(&path, b"no image").unwrap();
        let error = IndexImage::read(&path).unwrap_err();
        assert!(matches!(error, Error::Png { source: PngError::Decode(_), .. }), "{error:?}");
        let gone = IndexImage::read(&folder.path().join("gone.png")).unwrap_err();
        assert!(matches!(gone, Error::Read { .. }), "{gone:?}");
    }
}
