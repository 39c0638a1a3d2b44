//! Collective operations of the processes of a run.

use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// Operations that all processes of a run perform together, in the same order.
///
/// They operate on values: autograd records nothing here. [`ProcessGroup`] also has a
/// differentiable sum.
///
/// # Errors
/// Each operation returns an error if a process has died, is late by more than the group's timeout,
/// or calls a different operation or the same one with a different shape or data type.
///
/// [`ProcessGroup`]: crate::ProcessGroup
pub trait Collective {
    /// Returns the number of processes.
    fn size(&self) -> usize;

    /// Returns the rank of this process, from 0.
    fn rank(&self) -> usize;

    /// Replaces the tensor with its sum over all processes.
    ///
    /// # Errors
    /// See [`Collective`].
    fn all_reduce_sum(&self, tensor: &mut Tensor) -> Result<()>;

    /// Replaces each element of the tensor with its maximum over all processes.
    ///
    /// # Errors
    /// See [`Collective`].
    fn all_reduce_max(&self, tensor: &mut Tensor) -> Result<()>;

    /// Replaces the values of the tensors with those of process `root`, in few messages.
    ///
    /// # Errors
    /// See [`Collective`].
    fn broadcast_all(&self, tensors: &[Tensor], root: usize) -> Result<()>;

    /// Returns the tensor of each process, by rank. All must have the same shape and data type.
    ///
    /// # Errors
    /// See [`Collective`].
    fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>>;

    /// Waits until every process has called this function.
    ///
    /// # Errors
    /// See [`Collective`].
    fn barrier(&self) -> Result<()>;

    /// Replaces the tensor's values with those of process `root`.
    ///
    /// # Errors
    /// See [`Collective`].
    fn broadcast(&self, tensor: &mut Tensor, root: usize) -> Result<()> {
        self.broadcast_all(std::slice::from_ref(tensor), root)
    }

    /// Returns the bytes of process `root`; those of the others are ignored.
    ///
    /// # Errors
    /// See [`Collective`].
    fn broadcast_bytes(&self, bytes: &[u8], root: usize) -> Result<Vec<u8>> {
        let mut length = Tensor::from_slice(&[bytes.len() as i64]);
        self.broadcast(&mut length, root)?;
        let mut buffer = if self.rank() == root {
            Tensor::from_slice(bytes)
        } else {
            Tensor::zeros([i64::try_from(&length)?], (Kind::Uint8, Device::Cpu))
        };
        if buffer.numel() > 0 {
            self.broadcast(&mut buffer, root)?;
        }
        Ok(Vec::try_from(&buffer)?)
    }

    /// Returns the bytes of each process, by rank; lengths may differ.
    ///
    /// # Errors
    /// See [`Collective`].
    fn all_gather_bytes(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let lengths = self.all_gather(&Tensor::from_slice(&[bytes.len() as i64]))?;
        let lengths = lengths
            .iter()
            .map(|length| Ok(i64::try_from(length)?))
            .collect::<Result<Vec<i64>>>()?;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if longest == 0 {
            return Ok(vec![Vec::new(); lengths.len()]);
        }
        let padded = Tensor::zeros([longest], (Kind::Uint8, Device::Cpu));
        padded.narrow(0, 0, bytes.len() as i64).copy_(&Tensor::from_slice(bytes));
        let gathered = self.all_gather(&padded)?;
        let cut =
            |(tensor, &length): (&Tensor, &i64)| Ok(Vec::try_from(tensor.narrow(0, 0, length))?);
        gathered.iter().zip(&lengths).map(cut).collect()
    }

    /// Returns the text of each process, by rank.
    ///
    /// # Errors
    /// See [`Collective`].
    fn all_gather_text(&self, text: &str) -> Result<Vec<String>> {
        let all = self.all_gather_bytes(text.as_bytes())?;
        Ok(all.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect())
    }

    /// Checks that parameters have the same names, shapes, and data types in all processes.
    ///
    /// # Errors
    /// Returns an error in every process if the parameters of one differ from those of process 0.
    /// It names the first such process and its first differing parameter. Also see [`Collective`].
    fn require_same(&self, parameters: &[(String, Tensor)]) -> Result<()> {
        let own: Vec<String> = parameters.iter().map(description).collect();
        let first = self.broadcast_bytes(own.join("\n").as_bytes(), 0)?;
        let first = String::from_utf8_lossy(&first);
        let difference = first_difference(&own, &first).map_or(String::new(), |(own, first)| {
            let or_nothing = |text: Option<&str>| text.unwrap_or("no further parameter").to_owned();
            format!("{}\n{}", or_nothing(own), or_nothing(first))
        });
        let differences = self.all_gather_text(&difference)?;
        match differences.iter().position(|difference| !difference.is_empty()) {
            None => Ok(()),
            Some(rank) => {
                let (got, expected) = differences[rank].split_once('\n').unwrap_or_default();
                Err(Error::Parameters { rank, got: got.to_owned(), expected: expected.to_owned() })
            }
        }
    }
}

/// A run with a single process, which exchanges nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct SingleProcess;

impl Collective for SingleProcess {
    fn size(&self) -> usize {
        1
    }

    fn rank(&self) -> usize {
        0
    }

    fn all_reduce_sum(&self, _: &mut Tensor) -> Result<()> {
        Ok(())
    }

    fn all_reduce_max(&self, _: &mut Tensor) -> Result<()> {
        Ok(())
    }

    fn broadcast_all(&self, _: &[Tensor], _: usize) -> Result<()> {
        Ok(())
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>> {
        Ok(vec![tensor.detach().copy()])
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }
}

/// Describes a parameter in one line: name, shape, and data type.
fn description((name, tensor): &(String, Tensor)) -> String {
    format!("{name} {:?} {:?}", tensor.size(), tensor.kind()).replace('\n', " ")
}

/// Returns the first differing pair of `own` and the lines of `lines`, with `None` for a list that
/// has ended.
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
