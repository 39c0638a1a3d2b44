//! The patch grid of the positions, as stated in a config.

use serde_json::Value;

use super::json::Json;
use crate::error::Result;

/// The image size that the positions belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Grid {
    /// The key that states it.
    key: &'static str,
    /// Height and width in pixels.
    sides: [i64; 2],
}

impl Grid {
    /// Reads the value at `key`: one side, or height and width. timm and Hugging Face write both
    /// forms.
    pub(super) fn at(json: &Json, key: &'static str) -> Result<Option<Self>> {
        let side = |value: &Value| value.as_i64().filter(|&side| side > 0);
        let Some(value) = json.get(key) else { return Ok(None) };
        let sides = match value {
            Value::Array(sides) => match sides.as_slice() {
                [one] => side(one).map(|side| [side; 2]),
                // A third value in front is the number of channels.
                [height, width] | [_, height, width] => {
                    side(height).zip(side(width)).map(|(height, width)| [height, width])
                }
                _ => None,
            },
            value => side(value).map(|side| [side; 2]),
        };
        match sides {
            Some(sides) => Ok(Some(Self { key, sides })),
            None => json.refused(key, "a side or a height and width in pixels are"),
        }
    }

    /// Returns an error with the reason unless the positions belong to a square grid of `side x
    /// side` patches.
    pub(super) fn check(&self, patch_size: i64, side: i64) -> std::result::Result<(), String> {
        let [height, width] = self.sides;
        let [rows, columns] = self.sides.map(|side| side / patch_size.max(1));
        let key = self.key;
        if rows != columns {
            return Err(format!(
                "{key} is {height} x {width} pixels, a grid of {rows} x {columns} patches, but \
                 only square grids are supported"
            ));
        }
        if rows != side {
            return Err(format!(
                "{key} is {height} pixels, a grid of {rows} x {rows} patches, but the positions in \
                 the tensors next to it are read as those of {side} x {side}: positions of \
                 registers or of another grid are not supported; if it describes another network, \
                 move the weights to a folder of their own"
            ));
        }
        Ok(())
    }
}
