//! Features to look at: saved ones, and those whose coding rate is known.

use std::collections::BTreeMap;
use std::path::Path;

use eval::unit_rows;
use ndarray::Array2;
use ndarray_npy::ReadNpyError;
use tch::{Device, Kind, Tensor};

use crate::failure::{Context, Failure, Result};

/// Features that `simdino embed` wrote, or anybody else: `[n, d]` in double precision.
///
/// # Errors
/// Names the file when it cannot be read, holds no table of numbers, or not all are finite.
pub fn read(path: &Path) -> Result<Tensor> {
    let shown = path.display();
    if !path.is_file() {
        return Err(Failure::failed(format!("{shown}: no such file")));
    }
    let table = match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => npy(path)?,
        Some("safetensors") => only(path, model::weights::read_safetensors(path)?.tensors)?,
        Some("csv") => csv(path)?,
        _ => {
            let expected = "expected a file that ends in .npy, .safetensors or .csv";
            return Err(Failure::usage(format!("{shown}: {expected}")));
        }
    };
    if table.dim() != 2 || table.numel() == 0 {
        let got = table.size();
        let what = format!("{shown}: expected features of shape [n, d] (got {got:?})");
        return Err(Failure::failed(what));
    }
    let table = table.to_kind(Kind::Double);
    if f64::try_from(table.isfinite().all())? == 0.0 {
        return Err(Failure::failed(format!("{shown}: holds numbers that are not finite")));
    }
    Ok(table)
}

/// A NumPy array of two dimensions, in single or double precision.
fn npy(path: &Path) -> Result<Tensor> {
    let table: Array2<f64> = match ndarray_npy::read_npy::<_, Array2<f32>>(path) {
        Ok(table) => table.mapv(f64::from),
        Err(ReadNpyError::WrongDescriptor(_)) => {
            ndarray_npy::read_npy(path).context(|| format!("{}: cannot read it", path.display()))?
        }
        Err(error) => return Err(error).context(|| format!("{}: cannot read it", path.display())),
    };
    let numbers: Vec<f64> = table.iter().copied().collect();
    let (n, d) = table.dim();
    Ok(Tensor::from_slice(&numbers).reshape([n as i64, d as i64]))
}

/// The tensor named `features`, or the only one.
fn only(path: &Path, mut tensors: BTreeMap<String, Tensor>) -> Result<Tensor> {
    if let Some(features) = tensors.remove("features") {
        return Ok(features);
    }
    if tensors.len() == 1
        && let Some(tensor) = tensors.into_values().next()
    {
        return Ok(tensor);
    }
    let what = "expected a tensor 'features', or one tensor alone";
    Err(Failure::failed(format!("{}: {what}", path.display())))
}

/// The columns `f0, f1, ..` of a table with a header, or all columns of one without names.
fn csv(path: &Path) -> Result<Tensor> {
    let shown = path.display();
    let unreadable = || format!("{shown}: cannot read it");
    let mut reader = csv::Reader::from_path(path).context(unreadable)?;
    let named = |name: &str| name.strip_prefix('f').is_some_and(|i| i.parse::<u32>().is_ok());
    let header = reader.headers().context(unreadable)?;
    let columns: Vec<usize> =
        header.iter().enumerate().filter(|(_, name)| named(name)).map(|(i, _)| i).collect();
    let mut numbers: Vec<f64> = Vec::new();
    let mut rows = 0;
    for record in reader.records() {
        let record = record.context(unreadable)?;
        rows += 1;
        for &column in &columns {
            let cell = record.get(column).unwrap_or_default();
            let number = cell.parse().map_err(|_| {
                Failure::failed(format!("{shown}: row {rows} holds '{cell}' in place of a number"))
            })?;
            numbers.push(number);
        }
    }
    if columns.is_empty() {
        return Err(Failure::failed(format!("{shown}: has no columns f0, f1, ..")));
    }
    Ok(Tensor::from_slice(&numbers).reshape([rows, columns.len() as i64]))
}

/// Features whose coding rate is known in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// Directions drawn evenly.
    Random,
    /// All rows the same.
    Collapsed,
    /// Rows that spread evenly over all directions there are.
    Orthonormal,
}

impl Made {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Random, Self::Collapsed, Self::Orthonormal];

    /// Its name in tables and figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Collapsed => "collapsed",
            Self::Orthonormal => "orthonormal",
        }
    }

    /// `n` unit rows of width `d`, the same for the same seed.
    pub fn rows(self, n: usize, d: usize, seed: i64) -> Tensor {
        let (n, d) = (n as i64, d as i64);
        let double = (Kind::Double, Device::Cpu);
        match self {
            Self::Random => {
                tch::manual_seed(seed);
                unit_rows(&Tensor::randn([n, d], double))
            }
            Self::Collapsed => {
                Tensor::eye(d, double).narrow(0, 0, 1).expand([n, d], false).contiguous()
            }
            // Unit vectors in turn, each as often as the others, but for a remainder.
            Self::Orthonormal => {
                let index = Tensor::arange(n, (Kind::Int64, Device::Cpu)).remainder(d);
                Tensor::eye(d, double).index_select(0, &index)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn words(path: &Path) -> String {
        read(path).unwrap_err().lines().join(" ")
    }

    #[test]
    fn every_format_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let table = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.5, 5.0, 6.0]).reshape([3, 2]);
        let file = |name: &str| dir.path().join(name);
        table.write_npy(file("a.npy")).unwrap();
        let named = [("anything".to_owned(), table.shallow_clone())];
        model::weights::write_safetensors(&file("a.safetensors"), &named, &[].into()).unwrap();
        let text = "name,label,class,f0,f1\n\"a,b\",,,1,2\nc,0,x,3,4.5\nd,,,5,6\n";
        fs::write(file("a.csv"), text).unwrap();
        for name in ["a.npy", "a.safetensors", "a.csv"] {
            assert_eq!(read(&file(name)).unwrap(), table.to_kind(Kind::Double), "{name}");
        }
    }

    #[test]
    fn what_is_no_table_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        assert!(words(&dir.path().join("none.npy")).contains("none.npy: no such file"));
        assert!(words(&file("a.txt", b"")).contains(".npy, .safetensors or .csv"));
        assert!(words(&file("a.npy", b"not numpy")).contains("a.npy: cannot read it"));
        let whole = dir.path().join("whole.npy");
        Tensor::ones([9, 9], (Kind::Float, Device::Cpu)).write_npy(&whole).unwrap();
        let bytes = fs::read(&whole).unwrap();
        for end in [20, 100, bytes.len() - 1] {
            assert!(words(&file("cut.npy", &bytes[..end])).contains("cut.npy: cannot read it"));
        }
        let huge =
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3000000000, 4000000000), }\n";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((huge.len() as u16).to_le_bytes());
        bytes.extend(huge.as_bytes());
        assert!(words(&file("huge.npy", &bytes)).contains("huge.npy: cannot read it"));
        assert!(words(&file("a.csv", b"x,y\n1,2\n")).contains("no columns f0"));
        assert!(words(&file("b.csv", b"f0,f1\n1,x\n")).contains("row 1 holds 'x'"));
        assert!(words(&file("c.csv", b"f0,f1\n")).contains("shape [n, d] (got [0, 2])"));
        assert!(words(&file("d.csv", b"f0,f1\n1,nan\n")).contains("not finite"));
    }
}
