//! Collects the rows of a list while it is read. Only names and labels are kept in memory.

use std::collections::HashMap;
use std::path::Path;

use super::super::labels::Labels;
use super::super::names::Names;
use super::super::notices::Notices;
use super::table::Table;
use crate::error::{Error, Result};

/// The number that stands for "no label" among the numbers of label texts.
const NONE: u32 = u32::MAX;

/// The rows so far. Labels are stored as the numbers of their texts.
pub(super) struct Rows<'a> {
    path: &'a Path,
    names: Names,
    labels: Vec<u32>,
    texts: HashMap<String, u32>,
    pub(super) notices: Notices,
    /// The first line that could not be used.
    first_lost: Option<(usize, String)>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        let (names, labels, texts) = (Names::default(), Vec::new(), HashMap::new());
        Self { path, names, labels, texts, notices: Notices::default(), first_lost: None }
    }

    /// Returns the error for a list that cannot be read further.
    pub(super) fn problem(&self, line: usize, problem: impl Into<String>) -> Error {
        Error::List { path: self.path.into(), line, problem: problem.into() }
    }

    /// Adds an image and its label, or the reason why the label cannot be read.
    pub(super) fn push(
        &mut self,
        line: usize,
        file: &str,
        label: std::result::Result<Option<&str>, String>,
    ) {
        if file.contains('\0') {
            return self.lose(line, "the path contains a NUL byte");
        }
        self.names.push(file);
        let label = label.unwrap_or_else(|why| {
            self.notices.unread_labels.push(format!("line {line}, {file}"), why);
            None
        });
        let next = self.texts.len() as u32;
        let number = match label {
            None => NONE,
            Some(label) => match self.texts.get(label) {
                Some(&number) => number,
                None => *self.texts.entry(label.to_owned()).or_insert(next),
            },
        };
        self.labels.push(number);
    }

    /// Records a line that names no image.
    pub(super) fn lose(&mut self, line: usize, problem: impl Into<String>) {
        let problem = problem.into();
        if self.first_lost.is_none() {
            self.first_lost = Some((line, problem.clone()));
        }
        self.notices.lost.push(format!("line {line}"), problem);
    }

    /// Returns the table, or an error if no line could be used.
    pub(super) fn finish(mut self) -> Result<Table> {
        if let (0, Some((line, problem))) = (self.names.len(), &self.first_lost) {
            return Err(self.problem(*line, problem.clone()));
        }
        self.names.shrink();
        let mut texts: Vec<(String, u32)> = self.texts.into_iter().collect();
        texts.sort_unstable_by_key(|(_, number)| *number);
        let texts: Vec<Option<String>> = texts.into_iter().map(|(text, _)| Some(text)).collect();
        let Labels { labels: classes, names: class_names } = Labels::from_texts(&texts);
        let (names, notices) = (self.names, self.notices);
        if classes.iter().all(Option::is_none) {
            return Ok(Table { names, classes: Vec::new(), class_names, notices });
        }
        let class = |number: u32| classes.get(number as usize).copied().flatten();
        let mut classes: Vec<u32> =
            self.labels.iter().map(|&number| class(number).unwrap_or(Table::UNLABELED)).collect();
        classes.shrink_to_fit();
        Ok(Table { names, classes, class_names, notices })
    }
}
