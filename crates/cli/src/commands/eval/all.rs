//! `simdino eval all`: runs every protocol for which images are given, and prints one table.

mod args;
mod others;

use std::collections::BTreeSet;
use std::time::Instant;

use eval::record::Record;
use eval::store::ImageFeature;
use protocols::Subject;
use protocols::labeled::{Knn, LabeledProtocol, LabeledTask, Linear, Logistic};
use serde_json::json;

use crate::console::note;
use crate::failure::{Context, Failure, Result};
use crate::sizes::whole_patches;

use super::labeled::LabeledArgs;
use super::outcome::{Measured, Outcome, keep, measure_each, table};
use super::terminal::Terminal;
use super::{knn, linear, logistic};
pub use args::AllArgs;
use others::{OTHERS, Other};

/// A protocol on labeled images with its published settings.
struct Labeled {
    name: &'static str,
    /// Features that the protocol needs. A network may have too few blocks for them.
    wanted: fn() -> BTreeSet<ImageFeature>,
    measure: fn(&LabeledTask<'_>, &AllArgs) -> Result<Measured>,
}

/// The protocols on labeled images, which share features; the cheapest comes first.
const LABELED: [Labeled; 3] = [
    Labeled {
        name: Knn::NAME,
        wanted: || Knn::default().features(),
        measure: |task, args| knn::measure(&Knn::default(), &args.networks, task),
    },
    Labeled {
        name: Logistic::NAME,
        wanted: || Logistic::default().features(),
        measure: |task, _| logistic::measure(&Logistic::default(), task),
    },
    Labeled {
        name: Linear::NAME,
        wanted: || Linear::default().features(),
        measure: |task, args| {
            let skip_untrained = args.skip_untrained;
            linear::measure(&Linear { skip_untrained, ..Linear::default() }, task)
        },
    },
];

/// The protocols to run.
struct Chosen {
    images: Option<LabeledArgs>,
    labeled: Vec<&'static Labeled>,
    others: Vec<&'static Other>,
}

impl AllArgs {
    fn chosen(&self) -> Result<Chosen> {
        let names = || LABELED.iter().map(|one| one.name).chain(OTHERS.iter().map(|one| one.name));
        if let Some(name) = self.without.iter().find(|name| !names().any(|known| known == *name)) {
            let known = names().collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!(
                "--without {name}: unknown protocol; the protocols are {known}"
            )));
        }
        let wanted = |name: &str| !self.without.iter().any(|without| without == name);
        let images = self.train.clone().zip(self.test.clone()).map(|(train, test)| {
            let (networks, embedding) = (self.networks.clone(), self.embedding.clone());
            LabeledArgs::new(networks, embedding, [train, test], self.limits())
        });
        let labeled = LABELED.iter().filter(|one| images.is_some() && wanted(one.name)).collect();
        let others = OTHERS.iter().filter(|one| (one.given)(self) && wanted(one.name)).collect();
        let chosen = Chosen { images, labeled, others };
        if chosen.labeled.is_empty() && chosen.others.is_empty() {
            return Err(Failure::usage(if self.without.is_empty() {
                "no images given: use --train and --test; --images, --labels, --test-images, and \
                 --test-labels; --object-images; --frames and --truth; --retrieval-images and \
                 --retrieval-truth; --copydays; or --depth-images and the other three folders of \
                 depth"
            } else {
                "--without: no protocol is left to run"
            }));
        }
        if chosen.labeled.is_empty() && self.embedding.given() {
            return Err(Failure::usage(
                "--resize, --crop, and --batch are for labeled images, which are not measured: \
                 give --train and --test, or --dense-crop for segmentation and depth",
            ));
        }
        if self.dense.given() {
            self.dense.check()?;
        }
        self.check()?;
        // What is wrong with images or annotations should be reported before hours of work.
        for other in &chosen.others {
            let protocol = (other.protocol)(self)?;
            protocol.check().context(|| other.name.to_owned())?;
        }
        Ok(chosen)
    }
}

/// Measures all networks.
pub fn run(args: &AllArgs) -> Result<Outcome> {
    let (chosen, terminal) = (args.chosen()?, Terminal::default());
    measure_each(&args.networks, &mut |subject| all(args, &chosen, subject, &terminal))
}

fn all(
    args: &AllArgs,
    chosen: &Chosen,
    subject: &Subject,
    terminal: &Terminal,
) -> Result<Measured> {
    let mut done = Done::default();
    if let Some(images) = chosen.images.as_ref().filter(|_| !chosen.labeled.is_empty()) {
        labeled(args, (chosen, images), (subject, terminal), &mut done)?;
    }
    for one in &chosen.others {
        done.put(args, subject, one.name, || {
            if let Some(side) = args.dense_crop.filter(|_| one.dense) {
                whole_patches("--dense-crop", side, &subject.weights.model)?;
            }
            Measured::of((one.protocol)(args)?.measure(subject, terminal)?)
        })?;
    }
    done.measured()
}

/// Measures the protocols on labeled images.
fn labeled(
    args: &AllArgs,
    (chosen, images): (&Chosen, &LabeledArgs),
    (subject, terminal): (&Subject, &Terminal),
    done: &mut Done,
) -> Result<()> {
    let depth = subject.weights.backbone.depth();
    let fits = |feature: &ImageFeature| match feature {
        ImageFeature::Cls(block) => i64::from(*block) <= depth,
        ImageFeature::MeanPatch => true,
    };
    let wanted = chosen.labeled.iter().flat_map(|one| (one.wanted)()).filter(fits).collect();
    let (images, start) = (images.images(subject), Instant::now());
    let task = images.as_ref().map_err(Clone::clone).and_then(|images| {
        let task = LabeledTask::open(images, subject, &wanted, terminal);
        task.map_err(Failure::from)
    });
    match task {
        Ok(task) => {
            let seconds = start.elapsed().as_secs_f64();
            note(&format!("features of labeled images: {seconds:.1} s"));
            let mut labeled = chosen.labeled.iter();
            labeled.try_for_each(|one| {
                done.put(args, subject, one.name, || (one.measure)(&task, args))
            })
        }
        // All protocols on labeled images fail with the same error.
        Err(failure) => {
            let names: Vec<&str> = chosen.labeled.iter().map(|one| one.name).collect();
            done.put(args, subject, &names.join(", "), || Err(failure))
        }
    }
}

/// The results of a network so far.
#[derive(Default)]
struct Done {
    records: Vec<Record>,
    failures: Vec<(String, Failure)>,
}

impl Done {
    /// Runs a protocol, and saves its results at once, because the next one may take hours. If it
    /// fails, prints a warning and goes on.
    ///
    /// # Errors
    /// Returns an error if the results cannot be saved.
    fn put(
        &mut self,
        args: &AllArgs,
        subject: &Subject,
        name: &str,
        measure: impl FnOnce() -> Result<Measured>,
    ) -> Result<()> {
        let start = Instant::now();
        match measure() {
            Ok(measured) => {
                note(&format!("{name}: {:.1} s", start.elapsed().as_secs_f64()));
                if let Some(folder) = args.networks.folder_of_results(&subject.path) {
                    keep(&folder, &measured.records)?;
                }
                self.records.extend(measured.records);
            }
            Err(failure) => {
                let why = format!("{name}: {}", failure.lines().join("; "));
                note(&format!("warning: skipped {why}"));
                self.failures.push((why, failure));
            }
        }
        Ok(())
    }

    fn measured(mut self) -> Result<Measured> {
        if self.records.is_empty() {
            return Err(match (self.failures.pop(), self.failures.is_empty()) {
                (Some((_, only)), true) => only,
                _ => Failure::failed("no protocol could be measured, for the reasons above"),
            });
        }
        let rows: Vec<&Record> = self.records.iter().collect();
        let left_out: Vec<&String> = self.failures.iter().map(|(why, _)| why).collect();
        let missing: String = left_out.iter().map(|why| format!("skipped {why}\n")).collect();
        let text = table(&rows) + &missing;
        let json = json!({ "records": self.records, "left_out": left_out });
        let incomplete = !left_out.is_empty();
        Ok(Measured { records: self.records, json, text, incomplete })
    }
}
