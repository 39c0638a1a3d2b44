//! Loads one tensor of a file into one variable.

use std::collections::BTreeMap;

use tch::Tensor;

use super::file::TensorFile;
use super::keys::Recipe;
use super::{resize, shorten};
use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// One variable to load.
pub(super) struct Step {
    pub(super) name: String,
    pub(super) recipe: Recipe,
    /// Shape of the recipe's result.
    pub(super) from: Vec<i64>,
}

impl Step {
    /// Reads the tensor and copies it into the variable, resizing it if necessary.
    pub(super) fn run(
        &self,
        file: &TensorFile,
        variables: &BTreeMap<String, Tensor>,
        model: &ModelConfig,
    ) -> Result<()> {
        let Some(variable) = variables.get(&self.name) else { return Ok(()) };
        let mut variable = variable.detach();
        let to = variable.size();
        if let Recipe::Whole(key) = &self.recipe
            && self.from == to
        {
            file.read_into(key, &mut variable)?;
            return self.check_finite(file, &variable);
        }
        let mut tensor = read(file, &self.recipe)?;
        if !same_elements(&self.from, &to) {
            tensor = resized(&tensor, &to, model)?;
        }
        tch::no_grad(|| variable.f_copy_(&tensor.f_view(to.as_slice())?))?;
        self.check_finite(file, &variable)
    }

    /// Returns an error that names the tensor of the file unless all values of a loaded variable
    /// are finite.
    fn check_finite(&self, file: &TensorFile, variable: &Tensor) -> Result<()> {
        if is_finite(variable)? {
            return Ok(());
        }
        let mut name = None;
        for key in self.recipe.keys() {
            if name.is_none() && !is_finite(&file.read(key)?)? {
                name = Some(key.clone());
            }
        }
        // The value is finite in the file, but outside the range of the variable's own kind.
        let name = name.unwrap_or_else(|| shorten(self.recipe.keys()));
        Err(Error::NotFinite { path: file.path().to_path_buf(), name })
    }
}

/// Returns the shape of a recipe's result; `None` if its parts do not fit together.
pub(super) fn shape(file: &TensorFile, recipe: &Recipe) -> Option<Vec<i64>> {
    let of = |key: &String| file.info(key).map(|info| info.shape.to_vec());
    match recipe {
        Recipe::Whole(key) => of(key),
        Recipe::Stacked(keys) => {
            let mut first = of(&keys[0])?;
            let same = keys.iter().all(|key| of(key).as_ref() == Some(&first));
            let rows = first.first_mut().filter(|_| same)?;
            *rows = rows.checked_mul(3)?;
            Some(first)
        }
        Recipe::WithoutClass(key) => {
            let mut shape = of(key)?;
            *shape.get_mut(1)? += 1;
            Some(shape)
        }
    }
}

/// Reads the result of a recipe.
pub(super) fn read(file: &TensorFile, recipe: &Recipe) -> Result<Tensor> {
    Ok(match recipe {
        Recipe::Whole(key) => file.read(key)?,
        Recipe::Stacked(keys) => {
            let parts = keys.iter().map(|key| file.read(key)).collect::<Result<Vec<_>>>()?;
            Tensor::f_cat(&parts, 0)?
        }
        Recipe::WithoutClass(key) => {
            let patches = file.read(key)?; // [1, N, D]
            let class = patches.f_narrow(1, 0, 1)?.f_zeros_like()?; // [1, 1, D]
            Tensor::f_cat(&[class, patches], 1)?
        }
    })
}

/// Returns whether shapes differ at most in dimensions of 1: a mask token `[1, 1, D]` equals one
/// `[1, D]`.
pub(super) fn same_elements(from: &[i64], to: &[i64]) -> bool {
    let wide = |shape: &[i64]| shape.iter().copied().filter(|&n| n != 1).collect::<Vec<_>>();
    wide(from) == wide(to)
}

/// Returns whether a tensor can be resized to the requested shape.
pub(super) fn fits(name: &str, from: &[i64], to: &[i64]) -> bool {
    match (name, from, to) {
        ("pos_embed", &[1, n, d], &[1, _, dim]) => d == dim && n > 0 && resize::is_square(n - 1),
        ("patch_embed.proj.weight", &[d, c, p, q], &[dim, _, _, _]) => {
            d == dim && p == q && p > 0 && c > 0
        }
        _ => false,
    }
}

/// Returns whether all values of a tensor are finite.
pub(super) fn is_finite(tensor: &Tensor) -> Result<bool> {
    Ok(tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0)
}

/// Resizes positions or patch kernels to the requested shape.
fn resized(tensor: &Tensor, to: &[i64], model: &ModelConfig) -> Result<Tensor> {
    let &[_, channels, patch_size, _] = to else {
        let side = model.image_size / model.patch_size;
        return Ok(resize::positions(tensor, side, model.pos_interpolation).contiguous());
    };
    let mut kernel = tensor.shallow_clone();
    if kernel.size()[1] != channels {
        kernel = resize::channels(&kernel, channels);
    }
    if kernel.size()[3] != patch_size {
        kernel = resize::patch_kernel(&kernel, patch_size)?;
    }
    Ok(kernel.contiguous())
}
