//! Whether the positions of a network belong to a square grid.

use super::{Beside, Shapes, stated};
use crate::error::Result;
use crate::weights::file::TensorFile;
use crate::weights::keys::KeyStyle;
use crate::weights::networks::NetworkInFile;
use crate::weights::resize::is_square;

/// Checks that the grid of a network's positions, if it has any, can be told from its tensors and
/// from the config beside the file.
///
/// # Errors
/// Returns an error if it cannot.
pub(in crate::weights) fn check_positions(
    file: &TensorFile,
    network: &NetworkInFile,
) -> Result<()> {
    let positions = network.backbone.contains_key("pos_embed");
    if !positions || stated(file, network)?.is_some() {
        return Ok(());
    }
    let shapes = Shapes { file, recipes: &network.backbone, network };
    shapes.check_positions(&Beside::of(file)?).map(|_| ())
}

impl Shapes<'_> {
    /// Returns an error if the number of positions is ambiguous: they may belong to something other
    /// than a square grid, with or without a position for the class token, and nothing tells which.
    /// If one reading is likely, returns it as an assumption.
    pub(super) fn check_positions(&self, beside: &Beside) -> Result<Option<String>> {
        let ([_, count, _], side) = (self.need::<3>("pos_embed")?, self.side()?);
        let class = count != side * side;
        let stated = beside.class_has_position;
        if stated.is_some_and(|stated| stated != class) {
            return Err(beside.error(format!(
                "no_embed_class is {class} in it, but the {count} positions in the tensors next to \
                 it are those of {side} x {side} patches {} the class token: positions of \
                 registers and non-square grids are not supported",
                if class { "and" } else { "without" }
            )));
        }
        let style = self.network.style;
        let with_registers = self.get("register_tokens").and_then(|s| s.get(1)).copied();
        let key = self.recipes.get("register_tokens").and_then(|recipe| recipe.keys().first());
        let of_timm = key.is_some_and(|key| key.ends_with("reg_token"));
        // timm has positions either for both the class token and the registers, or for neither.
        if let (true, Some(registers), None) = (of_timm, with_registers, &beside.grid)
            && is_square(count - 1 - registers)
        {
            return Err(self.error(format!(
                "the {count} positions may be those of {side} x {side} patches, or of fewer \
                 patches with the class token and {registers} registers: put timm's config.json \
                 with model_args.img_size next to the file"
            )));
        }
        if class {
            return Ok(None);
        }
        let always = matches!(style, KeyStyle::HfDinov2 | KeyStyle::HfVit)
            || self.get("mask_token").is_some()
            || (with_registers.is_some() && !of_timm);
        let others = count - 1;
        if always {
            return Err(self.error(format!(
                "the {count} positions, one of them that of the class token, as in all networks \
                 with such names, are for {others} patches: non-square grids are not supported"
            )));
        }
        let known = beside.grid.is_some() || with_registers.is_some();
        Ok((!known).then(|| {
            format!(
                "{count} positions: {side} x {side} patches without the class token (timm's \
                 no_embed_class), not {others} patches in a non-square grid"
            )
        }))
    }
}
