//! Decodes the files whose paths are given on standard input, one per line. Next to each file,
//! writes its RGB pixels (`PATH.rgb`: width and height as little-endian 32-bit integers, then all
//! rows) or, if it is rejected, the reason (`PATH.error`). The scripts in tools/parity compare the
//! results with other decoders.

use std::error::Error;
use std::fs;
use std::io::{BufRead, stdin};

fn main() -> Result<(), Box<dyn Error>> {
    for path in stdin().lock().lines() {
        let path = path?;
        match decode::decode(&fs::read(&path)?) {
            Ok(image) => {
                let (width, height) = image.dimensions();
                let size = [width.to_le_bytes(), height.to_le_bytes()].concat();
                fs::write(format!("{path}.rgb"), [size, image.into_raw()].concat())?;
            }
            Err(error) => {
                let mut text = error.to_string();
                let mut next = error.source();
                while let Some(reason) = next {
                    text = format!("{text}: {reason}");
                    next = reason.source();
                }
                fs::write(format!("{path}.error"), text)?;
            }
        }
    }
    Ok(())
}
