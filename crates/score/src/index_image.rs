//! Annotations of videos: PNG files whose pixels are numbers of objects.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use png::{BitDepth, ColorType, Transformations};

use crate::{Error, PngError, Result};

/// More pixels are no frame of a video.
const MAX_PIXELS: u64 = 1 << 28;

/// An image whose pixels are numbers: 0 is the background, 1 to 254 are objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexImage {
    /// Pixels per row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
    /// The number of each pixel, row by row.
    pub pixels: Vec<u8>,
}

impl IndexImage {
    /// Reads a PNG file of palette indices, or of gray values of 1 or 8 bits; the colors of the palette
    /// do not matter.
    ///
    /// # Errors
    /// [`Error::Read`], and [`Error::Png`] for other files.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path);
        let file = file.map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::decode(file).map_err(|source| Error::Png { path: path.to_owned(), source })
    }

    fn decode(file: File) -> std::result::Result<Self, PngError> {
        let mut decoder = png::Decoder::new(BufReader::new(file));
        decoder.set_transformations(Transformations::IDENTITY);
        let mut reader = decoder.read_info().map_err(PngError::Decode)?;
        let (width, height) = reader.info().size();
        let depth = match reader.output_color_type() {
            (ColorType::Indexed, depth) => depth,
            (ColorType::Grayscale, depth @ (BitDepth::One | BitDepth::Eight)) => depth,
            (color, depth) => {
                return Err(PngError::Color { color: name(color), bits: depth as u8 });
            }
        };
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            return Err(PngError::TooLarge { width, height });
        }
        let size = reader.output_buffer_size();
        let mut buffer = vec![0; size.ok_or(PngError::TooLarge { width, height })?];
        let frame = reader.next_frame(&mut buffer).map_err(PngError::Decode)?;
        let rows = buffer.chunks_exact(frame.line_size.max(1)).take(height as usize);
        let pixels = rows.flat_map(|row| unpacked(row, depth as u8).take(width as usize));
        Ok(Self { width, height, pixels: pixels.collect() })
    }

    /// Writes a PNG file with the palette of PASCAL VOC, which DAVIS uses, too.
    ///
    /// # Errors
    /// [`Error::Write`]; also if there are not `width * height` pixels.
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

/// The color of an object: its bits go in turns to red, green, and blue, the lowest to the highest
/// bit of red.
fn color(number: u8) -> [u8; 3] {
    [0, 1, 2].map(|channel| {
        let bit = |place: u8| number >> (3 * place + channel) & 1;
        (0..3).filter(|place| 3 * place + channel < 8).map(|place| bit(place) << (7 - place)).sum()
    })
}

/// The values of a row; the first is in the highest bits of its byte.
fn unpacked(row: &[u8], bits: u8) -> impl Iterator<Item = u8> {
    let mask = (1_u16 << bits).wrapping_sub(1) as u8;
    let values = move |byte: u8| (1..=8 / bits).map(move |n| byte >> (8 - n * bits) & mask);
    row.iter().flat_map(move |&byte| values(byte))
}

fn name(color: ColorType) -> &'static str {
    match color {
        ColorType::Grayscale => "gray values",
        ColorType::GrayscaleAlpha => "gray values with alpha",
        ColorType::Rgb => "colors",
        ColorType::Rgba => "colors with alpha",
        ColorType::Indexed => "palette indices",
    }
}

#[cfg(test)]
mod tests {
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
        assert!(error.contains("colors of 8 bits") && error.contains("00000.png"), "{error}");
        write(&path, ColorType::Grayscale, BitDepth::Sixteen, 1, &[1, 2]);
        assert!(matches!(
            IndexImage::read(&path),
            Err(Error::Png { source: PngError::Color { bits: 16, .. }, .. })
        ));
        std::fs::write(&path, b"no image").unwrap();
        let error = IndexImage::read(&path).unwrap_err();
        assert!(matches!(error, Error::Png { source: PngError::Decode(_), .. }), "{error:?}");
        let gone = IndexImage::read(&folder.path().join("gone.png")).unwrap_err();
        assert!(matches!(gone, Error::Read { .. }), "{gone:?}");
    }
}
