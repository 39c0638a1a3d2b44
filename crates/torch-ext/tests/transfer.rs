//! Tests copies to the CPU and, if there is one, to a CUDA device.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

use std::collections::HashSet;
use std::thread;

use tch::{Cuda, Device, Kind, Tensor};
use torch_ext::{HostBuffer, HostPool, Uploader};

/// Returns the CPU and, if there is one, a GPU.
fn devices() -> Vec<Device> {
    if Cuda::is_available() {
        return vec![Device::Cpu, Device::Cuda(0)];
    }
    eprintln!("skipped: no CUDA device");
    vec![Device::Cpu]
}

/// Returns a buffer whose bytes depend on `number`.
fn filled(pool: &HostPool, len: usize, number: usize) -> HostBuffer {
    let mut buffer = pool.take(len).unwrap();
    for (place, byte) in buffer.as_mut().iter_mut().enumerate() {
        *byte = (place * 7 + number * 31) as u8;
    }
    buffer
}

fn expected(len: usize, number: usize) -> Vec<u8> {
    (0..len).map(|place| (place * 7 + number * 31) as u8).collect()
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    Vec::try_from(tensor.to_device(Device::Cpu).view([-1])).unwrap()
}

/// Keeps the device busy for some milliseconds.
fn busy(device: Device) -> Tensor {
    let side = if device.is_cuda() { 4096 } else { 64 };
    let x = Tensor::ones([side, side], (Kind::Float, device));
    (0..10).fold(x.shallow_clone(), |product, _| product.matmul(&x) * 1e-4)
}

#[test]
fn what_arrives_is_what_was_sent_however_often_the_memory_is_used_again() {
    const LEN: usize = 3 << 20;
    for device in devices() {
        let (pool, uploader) = (HostPool::new(device).unwrap(), Uploader::new(device).unwrap());
        assert_eq!(uploader.device(), device);
        let mut places = HashSet::new();
        let mut ahead = None;
        let mut kept = Vec::new();
        for number in 0..40 {
            let buffer = filled(&pool, LEN, number);
            places.insert(buffer.as_ref().as_ptr());
            let sent = uploader.send(buffer, Kind::Uint8, &[3, 1 << 10, 1 << 10]).unwrap();
            // The previous upload is used while this one is in flight, behind other work of the
            // device.
            let before = ahead.replace(sent);
            let _work = busy(device);
            if let Some(before) = before {
                let pixels = before.receive().unwrap();
                assert_eq!((pixels.device(), pixels.size()), (device, vec![3, 1 << 10, 1 << 10]));
                kept.push(pixels.bitwise_xor_tensor(&Tensor::zeros([1], (Kind::Uint8, device))));
            }
        }
        for (number, pixels) in kept.iter().enumerate() {
            assert!(bytes(pixels) == expected(LEN, number), "{device:?}: batch {number}");
        }
        assert!(places.len() <= 2, "{} pieces of memory for two in use", places.len());
    }
}

#[test]
fn every_type_arrives_and_a_wrong_size_is_refused() {
    for device in devices() {
        let (pool, uploader) = (HostPool::new(device).unwrap(), Uploader::new(device).unwrap());
        let send = |bytes: &[u8], kind, shape: &[i64]| {
            let mut buffer = pool.take(bytes.len()).unwrap();
            buffer.as_mut().copy_from_slice(bytes);
            uploader.send(buffer, kind, shape)
        };
        let numbers: Vec<u8> = [-1i64, 1 << 40, 7].into_iter().flat_map(i64::to_ne_bytes).collect();
        let got = send(&numbers, Kind::Int64, &[3]).unwrap().receive().unwrap();
        assert_eq!(Vec::<i64>::try_from(got).unwrap(), [-1, 1 << 40, 7]);
        let numbers: Vec<u8> = [0.5f32, -3.25].into_iter().flat_map(f32::to_ne_bytes).collect();
        let got = send(&numbers, Kind::Float, &[2, 1]).unwrap().receive().unwrap();
        assert_eq!(got.size(), [2, 1]);
        assert_eq!(Vec::<f32>::try_from(got.view([-1])).unwrap(), [0.5, -3.25]);
        let got = send(&[0, 1, 7, 0], Kind::Bool, &[2, 2]).unwrap().receive().unwrap();
        assert_eq!(Vec::<bool>::try_from(got.view([-1])).unwrap(), [false, true, true, false]);
        let none = send(&[], Kind::Float, &[0]).unwrap().receive().unwrap();
        assert_eq!((none.size(), none.device()), (vec![0], device));
        assert!(send(&[1, 2, 3], Kind::Uint8, &[2, 2]).is_err());
        assert!(send(&[1, 2, 3], Kind::Float, &[1]).is_err());
    }
    assert!(Uploader::new(Device::Cuda(1000)).is_err());
    assert!(HostPool::new(Device::Mps).is_err() && Uploader::new(Device::Mps).is_err());
}

#[test]
fn memory_comes_back_from_whoever_drops_it_and_sizes_are_kept_apart() {
    for device in devices() {
        let (pool, uploader) = (HostPool::new(device).unwrap(), Uploader::new(device).unwrap());
        let large = 5 << 20;
        let place = |buffer: &HostBuffer| buffer.as_ref().as_ptr() as usize;
        let (first, second) = (pool.take(large).unwrap(), pool.take(large).unwrap());
        let known = [place(&first), place(&second)];
        assert_ne!(known[0], known[1]);
        assert_eq!((first.as_ref().len(), pool.take(0).unwrap().as_ref().len()), (large, 0));
        // Buffers return unsent, after being sent but not received, and from another thread.
        drop(first);
        drop(uploader.send(second, Kind::Uint8, &[large as i64]).unwrap());
        let other = pool.clone();
        let from_thread = thread::spawn(move || place(&filled(&other, large, 1))).join().unwrap();
        assert!(known.contains(&from_thread));
        // Small buffers do not occupy large ones, and share memory despite different sizes.
        let small: HashSet<usize> =
            (900..1000).map(|len| place(&pool.take(len).unwrap())).collect();
        assert_eq!(small.len(), 1);
        assert!(known.iter().all(|large| !small.contains(large)));
        let both = [pool.take(large).unwrap(), pool.take(large).unwrap()].map(|b| place(&b));
        assert!(both.iter().all(|place| known.contains(place)));
    }
}

#[test]
fn pixels_of_a_gpu_become_floats_as_on_the_cpu() {
    let results: Vec<Tensor> = devices()
        .into_iter()
        .map(|device| {
            let (pool, uploader) = (HostPool::new(device).unwrap(), Uploader::new(device).unwrap());
            let sent = uploader.send(filled(&pool, 24 * 3, 5), Kind::Uint8, &[2, 3, 4, 3]).unwrap();
            let pixels = sent.receive().unwrap().permute([0, 3, 1, 2]);
            let of_channels =
                |values: &[f32]| Tensor::from_slice(values).view([1, 3, 1, 1]).to_device(device);
            let out = Tensor::empty([2, 3, 3, 4], (Kind::Float, device));
            let shift = of_channels(&[-2.1, -2.0, -1.8]);
            let _ = shift.addcmul_out(&out, &pixels, &of_channels(&[0.017, 0.018, 0.019]));
            out.to_device(Device::Cpu)
        })
        .collect();
    for result in &results {
        assert!(result.allclose(&results[0], 0.0, 1e-6, false));
    }
}

#[test]
fn page_locked_memory_is_what_a_gpu_gets() {
    for device in devices() {
        let pool = HostPool::new(device).unwrap();
        let buffer = filled(&pool, 1 << 16, 3);
        let place = buffer.as_ref().as_ptr() as usize;
        // SAFETY: the buffer outlives the tensor, which only queries the kind of memory.
        let view = unsafe {
            let size = [1 << 16];
            Tensor::from_blob(place as *const u8, &size, &[1], Kind::Uint8, Device::Cpu)
        };
        assert_eq!(view.is_pinned(Device::Cuda(0)), device.is_cuda());
    }
}
