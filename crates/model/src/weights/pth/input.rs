//! Reads the bytes of a pickle: its instructions, and the numbers and text that follow them.

use std::ops::Range;

use super::error::{PthError, Result};
use super::values::Node;

/// The bytes, and the position of the next one to read.
pub(super) struct Input<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Input<'_> {
    /// Reads the next byte.
    pub(super) fn byte(&mut self) -> Result<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// Reads the next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let bytes = *bytes.ok_or(PthError::Truncated("its pickle"))?;
        self.at += N;
        Ok(bytes)
    }

    /// Skips `count` bytes.
    pub(super) fn skip(&mut self, count: usize) -> Result<()> {
        self.range(count).map(drop)
    }

    /// Skips `count` bytes and returns their range.
    pub(super) fn range(&mut self, count: usize) -> Result<Range<u32>> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or(PthError::Truncated("its pickle"))?;
        let to_u32 = |at| u32::try_from(at).map_err(|_| PthError::Unfolds);
        let range = to_u32(self.at)?..to_u32(end)?;
        self.at = end;
        Ok(range)
    }

    /// Reads a byte count as a little-endian number of `width` bytes, and returns the range of that
    /// many bytes.
    pub(super) fn counted(&mut self, width: usize) -> Result<Range<u32>> {
        let count = match width {
            1 => u64::from(self.byte()?),
            4 => u64::from(u32::from_le_bytes(self.array()?)),
            _ => u64::from_le_bytes(self.array()?),
        };
        self.range(usize::try_from(count).map_err(|_| PthError::Truncated("its pickle"))?)
    }

    /// Reads a two's complement integer that follows its byte count of `width` bytes.
    pub(super) fn long(&mut self, width: usize) -> Result<Node> {
        let range = self.counted(width)?;
        let bytes = &self.bytes[range.start as usize..range.end as usize];
        if bytes.len() > 8 {
            return Ok(Node::Long(range));
        }
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut wide = if negative { [0xff; 8] } else { [0; 8] };
        wide[..bytes.len()].copy_from_slice(bytes);
        Ok(Node::Int(i64::from_le_bytes(wide)))
    }

    /// Reads text up to the end of the line, which is not included.
    pub(super) fn line(&mut self) -> Result<Range<u32>> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n');
        let range = self.range(len.ok_or(PthError::Truncated("its pickle"))?)?;
        self.at += 1;
        Ok(range)
    }

    /// Reads an integer, or `00` and `01` for false and true, as a line.
    pub(super) fn decimal_line(&mut self) -> Result<Node> {
        let range = self.line()?;
        match &self.bytes[range.start as usize..range.end as usize] {
            b"00" => Ok(Node::Bool(false)),
            b"01" => Ok(Node::Bool(true)),
            digits => {
                let value = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
                value.map(Node::Int).ok_or_else(|| self.broken("an invalid number"))
            }
        }
    }

    /// Returns an error at the current position.
    pub(super) fn broken(&self, what: &'static str) -> PthError {
        PthError::Pickle(what, self.at)
    }
}
