//! Bytes and descriptions between processes, in terms of tensors.

use tch::{Device, Kind, Tensor};

use super::Collective;
use crate::{Error, Result};

pub fn broadcast_bytes<C: Collective + ?Sized>(
    all: &C,
    bytes: &[u8],
    root: usize,
) -> Result<Vec<u8>> {
    let mut length = Tensor::from_slice(&[bytes.len() as i64]);
    all.broadcast(&mut length, root)?;
    let mut buffer = if all.rank() == root {
        Tensor::from_slice(bytes)
    } else {
        Tensor::zeros([i64::try_from(&length)?], (Kind::Uint8, Device::Cpu))
    };
    if buffer.numel() > 0 {
        all.broadcast(&mut buffer, root)?;
    }
    Ok(Vec::try_from(&buffer)?)
}

pub fn all_gather_bytes<C: Collective + ?Sized>(all: &C, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let lengths = all.all_gather(&Tensor::from_slice(&[bytes.len() as i64]))?;
    let lengths =
        lengths.iter().map(|length| Ok(i64::try_from(length)?)).collect::<Result<Vec<i64>>>()?;
    let longest = lengths.iter().copied().max().unwrap_or(0);
    if longest == 0 {
        return Ok(vec![Vec::new(); lengths.len()]);
    }
    let padded = Tensor::zeros([longest], (Kind::Uint8, Device::Cpu));
    padded.narrow(0, 0, bytes.len() as i64).copy_(&Tensor::from_slice(bytes));
    let gathered = all.all_gather(&padded)?;
    let cut = |(tensor, &length): (&Tensor, &i64)| Ok(Vec::try_from(tensor.narrow(0, 0, length))?);
    gathered.iter().zip(&lengths).map(cut).collect()
}

pub fn require_same<C: Collective + ?Sized>(
    all: &C,
    parameters: &[(String, Tensor)],
) -> Result<()> {
    let own: Vec<String> = parameters.iter().map(description).collect();
    let first = all.broadcast_bytes(own.join("\n").as_bytes(), 0)?;
    let first = String::from_utf8_lossy(&first);
    let difference = first_difference(&own, &first).map_or(String::new(), |(own, first)| {
        let or_nothing = |text: Option<&str>| text.unwrap_or("no further parameter").to_owned();
        format!("{}\n{}", or_nothing(own), or_nothing(first))
    });
    let differences = all.all_gather_text(&difference)?;
    match differences.iter().position(|difference| !difference.is_empty()) {
        None => Ok(()),
        Some(rank) => {
            let (got, expected) = differences[rank].split_once('\n').unwrap_or_default();
            Err(Error::Parameters { rank, got: got.to_owned(), expected: expected.to_owned() })
        }
    }
}

/// One line: name, shape and data type.
fn description((name, tensor): &(String, Tensor)) -> String {
    format!("{name} {:?} {:?}", tensor.size(), tensor.kind()).replace('\n', " ")
}

/// Where a list first differs from the lines of another, with none where one has ended.
fn first_difference<'a>(
    own: &'a [String],
    lines: &'a str,
) -> Option<(Option<&'a str>, Option<&'a str>)> {
    let (mut own, mut lines) = (own.iter().map(String::as_str), lines.lines());
    loop {
        match (own.next(), lines.next()) {
            (None, None) => return None,
            (a, b) if a != b => return Some((a, b)),
            _ => {}
        }
    }
}
