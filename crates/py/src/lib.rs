//! The native part of the Python package `simdino`: datasets, loaders, crops, and masks.
//!
//! It is a thin layer: options arrive as JSON and are parsed by the config types of `data` and
//! `augment`, so that their keys, defaults, and checks are those of the program. Pixels are
//! returned as arrays without copying. The public Python interface is in `python/simdino`.

#![forbid(unsafe_code)]

mod crops;
mod dataset;
mod error;
mod eval;
mod loader;
mod masks;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::crops::{MultiCrop, decode_image, preset};
    #[pymodule_export]
    use super::dataset::Dataset;
    #[pymodule_export]
    use super::eval::EvalLoader;
    #[pymodule_export]
    use super::loader::TrainLoader;
    #[pymodule_export]
    use super::masks::MaskGenerator;

    #[pymodule_init]
    fn init(module: &super::Bound<'_, super::PyModule>) -> super::PyResult<()> {
        use super::PyModuleMethods;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
