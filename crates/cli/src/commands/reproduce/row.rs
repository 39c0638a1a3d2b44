//! The rows of the paper's tables and figures.

/// The numbers of the paper about one network, and how simdino measures them.
#[derive(Debug, Clone)]
pub struct Row {
    /// Unique name, such as `table1/simdino_vitb16`.
    pub name: String,
    /// What the row shows, in words.
    pub shows: &'static str,
    /// The network: the name of the recipe that trains it, or another name if there is no recipe.
    pub network: Option<&'static str>,
    /// Overrides of the recipe's config, as `key=value`.
    pub overrides: &'static [&'static str],
    /// Where the paper's values are from.
    pub source: &'static str,
    pub measures: Vec<Measure>,
    /// Further commands, such as those of pictures, without `simdino`.
    pub commands: &'static [&'static [&'static str]],
    /// A remark for the reader; may be empty.
    pub note: &'static str,
}

/// Numbers that one command measures.
#[derive(Debug, Clone)]
pub struct Measure {
    /// Name, which is unique in a row.
    pub name: &'static str,
    pub how: How,
    /// Number of test images, or of sequences, in the paper.
    pub tests: usize,
    pub values: Vec<Value>,
    /// Largest difference from the paper, in percentage points, that counts as the same result.
    pub tolerance: Tolerance,
}

/// How numbers are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By `simdino eval` with these arguments. `{weights}` and keys of data such as `{imagenet}`
    /// are replaced with paths.
    Eval(&'static [&'static str]),
    /// From the k-NN curve of a run; the names of the metrics are epochs.
    Curve,
}

/// Tolerances in percentage points. They are our own choice, because the paper states no spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// For the authors' released weights, where only the evaluation differs.
    pub released: f64,
    /// For weights that were trained again.
    pub trained: f64,
}

/// A published number, in percent.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Name of the metric in the record of the evaluation.
    pub metric: &'static str,
    /// Value in the paper; `None` if we do not know it.
    pub paper: Option<f64>,
    /// Values that others published, each with its source.
    pub elsewhere: Vec<(f64, &'static str)>,
}

/// Creates a value of the paper.
pub fn paper(metric: &'static str, value: f64) -> Value {
    Value { metric, paper: Some(value), elsewhere: Vec::new() }
}

/// Creates a value of the paper that we do not know.
pub fn unknown(metric: &'static str) -> Value {
    Value { metric, paper: None, elsewhere: Vec::new() }
}

impl Value {
    /// Adds a value that others published.
    pub fn elsewhere(mut self, value: f64, source: &'static str) -> Self {
        self.elsewhere.push((value, source));
        self
    }
}

impl Row {
    /// Creates a row without numbers.
    pub fn new(name: impl Into<String>, shows: &'static str) -> Self {
        Self {
            name: name.into(),
            shows,
            network: None,
            overrides: &[],
            source: "",
            measures: Vec::new(),
            commands: &[],
            note: "",
        }
    }

    /// Creates a row about a network, named after it.
    pub fn of(table: &str, network: &'static str, shows: &'static str) -> Self {
        let short = network.trim_end_matches("_in1k");
        Self { network: Some(network), ..Self::new(format!("{table}/{short}"), shows) }
    }

    /// Adds a measure.
    pub fn with(mut self, measure: Measure) -> Self {
        self.measures.push(measure);
        self
    }

    /// Returns whether `filter` is the name of the row or its part before the slash.
    pub fn is(&self, filter: &str) -> bool {
        let group = self.name.split('/').next();
        self.name == filter || group == Some(filter)
    }
}
