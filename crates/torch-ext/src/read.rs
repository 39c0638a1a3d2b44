//! Reads bytes of a file directly into a tensor.

use std::io::{self, Read};

use tch::{Device, Tensor};

/// Fills `tensor` with the next bytes of `reader`, in row-major order and in this machine's byte
/// order, without an intermediate copy.
///
/// # Errors
/// Returns an error if the reader fails or ends early, after which the content of `tensor` is
/// unspecified, or if the tensor is not on the CPU or not contiguous.
pub fn read_into(reader: &mut impl Read, tensor: &mut Tensor) -> io::Result<()> {
    if tensor.device() != Device::Cpu || !tensor.is_contiguous() {
        let message = "a tensor to read into must be contiguous and on the CPU";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let len = tensor.numel() * tensor.kind().elt_size_in_bytes();
    if len == 0 {
        return Ok(());
    }
    // SAFETY: a contiguous CPU tensor owns `len` bytes at its data pointer. Any bytes are valid
    // elements of the kinds that tch has, except bool, whose bytes are normalized below. `tensor`
    // is borrowed mutably, and no other thread of libtorch accesses it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<u8>(), len) };
    reader.read_exact(bytes)?;
    if tensor.kind() == tch::Kind::Bool {
        bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn bytes_become_elements() {
        let mut tensor = Tensor::zeros([2, 2], (Kind::Float, Device::Cpu));
        let bytes: Vec<u8> = [1.0f32, -2.0, 3.5, f32::INFINITY].map(f32::to_le_bytes).concat();
        read_into(&mut bytes.as_slice(), &mut tensor).unwrap();
        let expected = Tensor::from_slice(&[1.0f32, -2.0, 3.5, f32::INFINITY]).view([2, 2]);
        assert_eq!(tensor, expected);
        let short = read_into(&mut &bytes[..15], &mut tensor).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        let mut flags = Tensor::zeros([3], (Kind::Bool, Device::Cpu));
        read_into(&mut [0u8, 1, 7].as_slice(), &mut flags).unwrap();
        assert_eq!(flags, Tensor::from_slice(&[false, true, true]));
        let mut turned = tensor.tr();
        assert!(read_into(&mut bytes.as_slice(), &mut turned).is_err());
    }
}
