//! Stores many strings in a single allocation.

/// A list of names, each of which takes eight bytes in addition to its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    bytes: String,
    /// End of each name in `bytes`.
    ends: Vec<u64>,
}

impl Names {
    /// Creates the names that end at `ends` in `bytes`. Returns `None` if `ends` is not valid for
    /// `bytes`.
    pub(super) fn new(bytes: String, ends: Vec<u64>) -> Option<Self> {
        let ordered = ends.windows(2).all(|pair| pair[0] <= pair[1]);
        let whole = ends.last().copied().unwrap_or(0) == bytes.len() as u64;
        let cut = |&end: &u64| bytes.is_char_boundary(end as usize);
        (ordered && whole && ends.iter().all(cut)).then_some(Self { bytes, ends })
    }

    /// Adds a name.
    pub(super) fn push(&mut self, name: &str) {
        self.bytes.push_str(name);
        self.ends.push(self.bytes.len() as u64);
    }

    /// Frees excess capacity.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    /// Returns the number of names.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns name `index`, if there is one.
    pub(super) fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.bytes.get(start..end)
    }

    /// Returns the concatenated names and the end of each.
    pub(super) fn parts(&self) -> (&str, &[u64]) {
        (&self.bytes, &self.ends)
    }
}
