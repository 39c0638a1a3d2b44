//! Weight files, and how their keys map to those of a model.

mod architecture;
mod beside;
mod export;
mod file;
mod header;
mod import;
mod keys;
mod locate;
mod native;
mod networks;
mod parts;
mod pretrained;
pub mod pth;
mod read_back;
mod report;
mod resize;
mod roles;
mod step;
mod stored;
mod unknown;

use std::collections::BTreeMap;

use tch::{Tensor, nn};

pub use architecture::{Inferred, infer};
pub use beside::normalization;
pub use export::{Backbone, Layout, export, loading_lines};
pub use file::{FileFormat, TensorFile, TensorInfo};
pub use import::{ImportPolicy, Target, import};
pub use keys::KeyStyle;
pub use locate::find;
pub use native::{WeightsFile, read_safetensors, write_safetensors};
pub use networks::{NetworkInFile, choose, named, networks};
pub use parts::{is_index, is_part};
pub use pretrained::{LoadOptions, PretrainedBackbone};
pub use read_back::{ReadBack, verify};
pub use report::{ImportReport, OtherShape, Resized};
pub use roles::Role;

/// Number of names that [`shorten`] lists before it counts the rest.
const NAMES_SHOWN: usize = 5;

/// Returns every variable of `vs`, trainable or not, sorted by name.
pub fn named_variables(vs: &nn::VarStore) -> Vec<(String, Tensor)> {
    vs.variables().into_iter().collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// Joins the first few names, and counts the rest.
fn shorten(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_names_is_counted() {
        let names: Vec<_> = (0..7).map(|i| format!("n{i}")).collect();
        assert_eq!(shorten(&names), "n0, n1, n2, n3, n4 and 2 more");
        assert_eq!(shorten(&names[..2]), "n0, n1");
    }
}
