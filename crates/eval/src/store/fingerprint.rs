//! Fingerprints of networks: their tensors, and the settings that tensors do not show.

use model::ModelConfig;
use model::weights::PretrainedBackbone;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// Returns 16 hexadecimal digits that depend on everything that determines the features of an
/// image: the names, shapes, and values of all tensors, the settings of the network, and the
/// normalization of its input. Apart from these, the features of the same network untrained depend
/// only on the seed.
///
/// # Errors
/// Returns an error if libtorch cannot copy a tensor to the CPU.
pub fn network_fingerprint(network: &PretrainedBackbone) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(settings(network));
    add_tensors(&mut hash, &network.tensors())?;
    Ok(short(hash))
}

/// Returns the settings that tensors do not show, such as the number of heads, as text.
fn settings(network: &PretrainedBackbone) -> String {
    let usual = ModelConfig::default();
    // These affect only training, so they get their default values.
    let model = ModelConfig {
        drop_path_rate: usual.drop_path_rate,
        drop_path_schedule: usual.drop_path_schedule,
        drop_path_form: usual.drop_path_form,
        checkpoint_blocks: usual.checkpoint_blocks,
        num_heads: Some(network.model.heads()),
        ..network.model.clone()
    };
    let normalize = &network.normalize;
    format!("{model:?} {:?} {:?} {:?}\n", normalize.mean, normalize.std, network.value_range)
}

fn add_tensors(hash: &mut Sha256, tensors: &[(String, Tensor)]) -> Result<()> {
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by_key(|(name, _)| name);
    for (name, tensor) in sorted {
        hash.update(format!("{name} {:?}\n", tensor.size()));
        let values = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let mut bytes = vec![0u8; values.numel() * 4];
        values.f_copy_data_u8(&mut bytes, values.numel())?;
        hash.update(&bytes);
    }
    Ok(())
}

/// Returns the first 16 hexadecimal digits of a hash.
pub(crate) fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
