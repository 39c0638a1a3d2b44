//! Summary statistics over several runs.

use super::scale::percent;

/// Mean, standard deviation, and range of one number over several runs.
pub(crate) struct Spread {
    /// Number of values.
    pub count: usize,
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation (`n - 1`); 0 for a single value.
    pub deviation: f64,
    /// Smallest value.
    pub least: f64,
    /// Largest value.
    pub most: f64,
}

impl Spread {
    /// Summarizes the finite values; `None` if there are none.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.filter(|x| x.is_finite()).collect();
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        Some(Self {
            count: values.len(),
            mean,
            deviation: (squares / (n - 1.0).max(1.0)).sqrt(),
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            most: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }

    /// Formats the mean as a percentage, with the standard deviation if there are several values.
    pub(crate) fn shown(&self) -> String {
        match self.count {
            1 => percent(self.mean, 1),
            _ => format!("{} ± {:.1}", percent(self.mean, 1), 100.0 * self.deviation),
        }
    }
}
