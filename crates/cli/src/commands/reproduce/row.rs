//! What a row of the paper consists of.

/// A number of the paper, or several of one network, and how simdino measures them.
#[derive(Debug, Clone)]
pub struct Row {
    /// Such as `table1/simdino_vitb16`.
    pub name: String,
    /// What it shows, in words.
    pub shows: &'static str,
    /// The network: the name of the recipe that trains it, or another name if there is no recipe.
    pub network: Option<&'static str>,
    /// Additional values of its config.
    pub overrides: &'static [&'static str],
    /// Where the paper's values are from.
    pub source: &'static str,
    pub measures: Vec<Measure>,
    /// Further commands, such as those of pictures, without `simdino`.
    pub commands: &'static [&'static [&'static str]],
    /// What a reader should know.
    pub note: &'static str,
}

/// Numbers that one command measures.
#[derive(Debug, Clone)]
pub struct Measure {
    /// Unique in a row.
    pub name: &'static str,
    pub how: How,
    /// Number of test images, or of sequences, in the paper.
    pub tests: usize,
    pub values: Vec<Value>,
    /// Largest difference from the paper, in points, that is still the same result.
    pub tolerance: Tolerance,
}

/// How numbers are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By `simdino eval` with these arguments, in which `{weights}` and the keys of data are replaced.
    Eval(&'static [&'static str]),
    /// Read from the k-NN curve of a run; the metric is the epoch.
    Curve,
}

/// Our own choice: the paper states no spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Of the authors' own weights, where only the evaluation differs.
    pub released: f64,
    /// Of weights that were trained again.
    pub trained: f64,
}

/// A number, in percent.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Its name in the record of the evaluation.
    pub metric: &'static str,
    /// In the paper; none if we do not know it.
    pub paper: Option<f64>,
    /// Published by others, with the source.
    pub elsewhere: Vec<(f64, &'static str)>,
}

/// A value of the paper.
pub fn paper(metric: &'static str, value: f64) -> Value {
    Value { metric, paper: Some(value), elsewhere: Vec::new() }
}

/// A value that we do not know.
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
    /// A row without numbers.
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

    /// A row about a network, named after it.
    pub fn of(table: &str, network: &'static str, shows: &'static str) -> Self {
        let short = network.trim_end_matches("_in1k");
        Self { network: Some(network), ..Self::new(format!("{table}/{short}"), shows) }
    }

    /// Adds numbers.
    pub fn with(mut self, measure: Measure) -> Self {
        self.measures.push(measure);
        self
    }

    /// Whether `filter` is its name or the part before the slash.
    pub fn is(&self, filter: &str) -> bool {
        let group = self.name.split('/').next();
        self.name == filter || group == Some(filter)
    }
}
