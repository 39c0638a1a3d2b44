//! Preprocessing of pixels, as described by files of Hugging Face and timm.

use serde_json::Value;

use super::json::Json;
use crate::error::Result;
use crate::normalize::Normalize;

/// Converts the operations of `preprocessor_config.json` to mean and deviation on the scale [0,
/// 1].
pub(super) fn of_preprocessor(json: &Json) -> Result<Option<Normalize>> {
    if json.flag("do_flip_channel_order")? == Some(true) {
        return json.refused("do_flip_channel_order", "channels in the order of the file are");
    }
    if json.flag("do_grayscale")? == Some(true) {
        return json.refused("do_grayscale", "the colors of the file are");
    }
    // Pixels on [-1, 1] before the mean is subtracted (ViViT).
    if json.flag("offset")? == Some(true) {
        return json.refused("offset", "pixels in [0, 1] before normalization are");
    }
    let rescales = json.flag("do_rescale")?.unwrap_or(true);
    let factor = json.number("rescale_factor")?.unwrap_or(1.0 / 255.0);
    if !(factor > 0.0 && factor.is_finite()) {
        return json.refused("rescale_factor", "a number greater than 0 is");
    }
    // The result of the value 1 on the scale [0, 1] before the mean is subtracted: 1, unless
    // pixels are not rescaled (0 to 255) or use another factor.
    let white = if rescales { 255.0 * factor } else { 255.0 };
    let white = if (white - 1.0).abs() < 1e-6 { 1.0 } else { white };
    let normalizes = json.flag("do_normalize")?.unwrap_or(true);
    let stated = if normalizes { pair(json, ["image_mean", "image_std"])? } else { None };
    match stated {
        Some(Normalize { mean, std }) => {
            let scaled = |values: Vec<f32>| values.into_iter().map(|v| v / white as f32).collect();
            Ok(Some(Normalize { mean: scaled(mean), std: scaled(std) }))
        }
        None if normalizes => Err(json.error(
            "has neither image_mean and image_std nor do_normalize set to false: add what its \
             class uses"
                .to_owned(),
        )),
        // A single value applies to all channels.
        None => Ok(Some(Normalize { mean: vec![0.0], std: vec![(1.0 / white) as f32] })),
    }
}

/// Reads mean and deviation from `config.json`, as written by timm or by simdino's exports.
pub(super) fn of_config(json: &Json) -> Result<Option<Normalize>> {
    if json.flag("do_normalize")? == Some(false) {
        return Ok(Some(Normalize { mean: vec![0.0], std: vec![1.0] }));
    }
    let inner = json.inner("pretrained_cfg");
    let timm = match &inner {
        Some(inner) => pair(inner, ["mean", "std"])?,
        // Older timm files have everything in one object.
        None if json.get("architecture").is_some() => pair(json, ["mean", "std"])?,
        None => None,
    };
    Ok(match timm {
        Some(found) => Some(found),
        None => pair(json, ["image_mean", "image_std"])?,
    })
}

fn pair(json: &Json, [mean, std]: [&str; 2]) -> Result<Option<Normalize>> {
    match (array(json, mean)?, array(json, std)?) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(json.error(format!("has {mean}, but not {std}"))),
        (None, Some(_)) => Err(json.error(format!("has {std}, but not {mean}"))),
        (Some(_), Some(values)) if values.iter().any(|&value| value <= 0.0) => {
            json.refused(std, "numbers greater than 0 are")
        }
        (Some(mean), Some(std)) => Ok(Some(Normalize { mean, std })),
    }
}

/// Reads one number per channel; a single number applies to all.
fn array(json: &Json, key: &str) -> Result<Option<Vec<f32>>> {
    let Some(value) = json.get(key) else { return Ok(None) };
    let values = match value {
        Value::Array(values) => values.iter().map(Value::as_f64).collect::<Option<Vec<_>>>(),
        value => value.as_f64().map(|value| vec![value]),
    };
    match values.filter(|values| !values.is_empty() && values.iter().all(|v| v.is_finite())) {
        Some(values) => Ok(Some(values.into_iter().map(|value| value as f32).collect())),
        None => json.refused(key, "numbers are"),
    }
}
