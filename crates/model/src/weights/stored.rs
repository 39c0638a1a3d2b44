//! A tensor whose data is still in its file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use tch::{Device, Kind, Tensor};

/// Maximum number of dimensions in libtorch.
const MAX_RANK: usize = 64;

/// Position of a storage's bytes in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// A tensor as its file describes it: a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredTensor {
    pub(crate) kind: Kind,
    pub(crate) shape: Vec<i64>,
    /// Steps from one element to the next along each dimension, in elements.
    pub(crate) strides: Vec<i64>,
    /// Offset of the first element from the start of the storage.
    pub(crate) first: i64,
    /// The storage.
    pub(crate) storage: Extent,
}

impl StoredTensor {
    /// Creates a tensor whose storage contains exactly its elements, in row-major order.
    pub(crate) fn contiguous(kind: Kind, shape: Vec<i64>, storage: Extent) -> Self {
        let mut strides = vec![1i64; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i].saturating_mul(shape[i].max(1));
        }
        Self { kind, shape, strides, first: 0, storage }
    }

    /// Returns the size of the elements in bytes once they are read.
    pub(crate) fn num_bytes(&self) -> u64 {
        self.shape.iter().product::<i64>() as u64 * self.kind.elt_size_in_bytes() as u64
    }

    /// Returns an error with the reason unless every element lies inside the storage, and no more
    /// elements are described than the storage contains.
    pub(crate) fn check(&self) -> std::result::Result<(), &'static str> {
        if self.shape.len() > MAX_RANK || self.shape.len() != self.strides.len() {
            return Err("with too many dimensions, or with strides that do not match them");
        }
        let negative = |values: &[i64]| values.iter().any(|&value| value < 0);
        if negative(&self.shape) || negative(&self.strides) || self.first < 0 {
            return Err("with a negative size, stride or offset");
        }
        let Some(count) = self.shape.iter().try_fold(1i64, |n, &size| n.checked_mul(size)) else {
            return Err("with more elements than can be counted");
        };
        let capacity = self.storage.len / self.kind.elt_size_in_bytes() as u64;
        if count as u64 > capacity {
            return Err("with more elements than its storage");
        }
        match self.span() {
            Some(span) if self.first as u64 + span as u64 <= capacity => Ok(()),
            _ => Err("that extends beyond its storage"),
        }
    }

    /// Returns the number of elements from the first to the last, inclusive; 0 if there are none,
    /// and `None` if it overflows.
    fn span(&self) -> Option<i64> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        let reach =
            self.shape.iter().zip(&self.strides).try_fold(0i64, |reach, (size, stride)| {
                (size - 1).checked_mul(*stride).and_then(|step| reach.checked_add(step))
            })?;
        // The caller adds the offset: if that overflows, the tensor exceeds any storage anyway.
        reach.checked_add(1).filter(|&span| span.checked_add(self.first).is_some())
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1i64;
        self.shape.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected = expected.saturating_mul(size.max(1));
            fits
        })
    }

    /// Reads the elements, in row-major order, on the CPU.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or libtorch rejects the shape.
    pub(crate) fn read(&self, file: &File) -> io::Result<Tensor> {
        if self.is_contiguous() {
            let mut tensor =
                Tensor::f_empty(&self.shape, (self.kind, Device::Cpu)).map_err(io::Error::other)?;
            self.read_span(file, &mut tensor)?;
            return Ok(tensor);
        }
        let span = self.span().unwrap_or(0);
        let mut flat =
            Tensor::f_empty([span], (self.kind, Device::Cpu)).map_err(io::Error::other)?;
        self.read_span(file, &mut flat)?;
        let view = flat.f_as_strided(&self.shape, &self.strides, 0).map_err(io::Error::other)?;
        Ok(view.contiguous())
    }

    /// Reads into a tensor of the same shape. Nothing is allocated if the two agree in all other
    /// respects.
    pub(crate) fn read_into(&self, file: &File, tensor: &mut Tensor) -> io::Result<()> {
        let direct = self.is_contiguous()
            && tensor.kind() == self.kind
            && tensor.device() == Device::Cpu
            && tensor.is_contiguous();
        if direct {
            return self.read_span(file, tensor);
        }
        let read = self.read(file)?;
        tch::no_grad(|| tensor.f_copy_(&read)).map_err(io::Error::other)
    }

    fn read_span(&self, file: &File, tensor: &mut Tensor) -> io::Result<()> {
        let start = self.first as u64 * self.kind.elt_size_in_bytes() as u64;
        torch_ext::read_into(&mut At { file, offset: self.storage.offset + start }, tensor)
    }
}

/// Reads a file from an offset, without its cursor, so that threads may share the file.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(bytes, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[i64], strides: &[i64], first: i64, len: u64) -> StoredTensor {
        let storage = Extent { offset: 0, len };
        StoredTensor {
            kind: Kind::Float,
            shape: shape.into(),
            strides: strides.into(),
            first,
            storage,
        }
    }

    #[test]
    fn only_what_lies_in_the_storage_is_accepted() {
        for (shape, strides, first, len) in [
            (&[2, 3][..], &[3, 1][..], 0, 24),
            (&[3, 2], &[1, 3], 0, 24),
            (&[2], &[1], 4, 24),
            (&[], &[], 5, 24),
            (&[0, 7], &[7, 1], 0, 0),
        ] {
            tensor(shape, strides, first, len).check().unwrap();
        }
        for (shape, strides, first, len) in [
            (&[2, 3][..], &[3, 1][..], 0, 23),
            (&[2, 3], &[3, 1], 1, 24),
            (&[1000], &[0], 0, 24), // one element a thousand times
            (&[-1], &[1], 0, 24),
            (&[2], &[-1], 1, 24),
            (&[2], &[1], -1, 24),
            (&[2], &[1], i64::MAX, 24),
            (&[2], &[i64::MAX], 0, 24),
            (&[1 << 40, 1 << 40], &[1, 1], 0, 24),
            (&[2, 3], &[1], 0, 24),
        ] {
            assert!(tensor(shape, strides, first, len).check().is_err(), "{shape:?} {strides:?}");
        }
    }

    #[test]
    fn sides_of_length_one_have_any_stride() {
        assert!(tensor(&[2, 1, 3], &[3, 99, 1], 0, 24).is_contiguous());
        assert!(!tensor(&[2, 3], &[1, 2], 0, 24).is_contiguous());
        // An empty tensor may have any other sizes.
        let (shape, storage) = (vec![0, 1 << 40, 1 << 40], Extent { offset: 0, len: 0 });
        assert!(StoredTensor::contiguous(Kind::Float, shape, storage).is_contiguous());
    }
}
