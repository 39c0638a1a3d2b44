//! Monocular depth estimation with a linear head.

use std::path::PathBuf;

use data::dense::{DepthOptions, DepthSet};
use eval::depth::{
    DepthConfig, DepthData, DepthScore, Estimator, LinearEstimator, MeanMap, check_scored,
    evaluate, state_file, train,
};
use eval::record::Record;
use eval::segmentation::{DenseExtractor, DenseNetwork};
use serde_json::Value;

use crate::dense::skipped;
use crate::error::{Result, positive};
use crate::observer::{Counter, Observer};
use crate::protocol::Protocol;
use crate::subject::Subject;

/// A folder of images and one of their depth maps, which have the same names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DepthFolder {
    /// The images: a folder, or a folder in a tar file.
    pub images: PathBuf,
    /// Their depth maps: gray PNG of 16 bits, or `.npy` of meters; 0 is not measured.
    pub maps: PathBuf,
    /// File with the names of the images to use, one per line; `None` = all.
    pub list: Option<PathBuf>,
}

/// Trains a linear head that estimates depth from frozen patch features, compared with the mean
/// depth at each position and with the same network untrained.
///
/// An interrupted training continues if [`Subject::heads`] is set.
///
/// # Source
/// DINOv2's depth estimation with a linear head.
#[derive(Debug, Clone)]
pub struct Depth {
    /// Images to learn from.
    pub train: DepthFolder,
    /// Images whose depth is estimated.
    pub test: DepthFolder,
    /// Maximum number of images to learn from, spread evenly over the set; `None` = all.
    pub max_train: Option<usize>,
    /// Maximum number of images to test with, spread evenly over the set; `None` = all.
    pub max_test: Option<usize>,
    /// Threads that decode images; `None` = one per core.
    pub workers: Option<usize>,
    /// Value of a PNG at one meter: 1000 for NYU, 256 for KITTI.
    pub divisor: f64,
    /// Settings of training and testing.
    pub config: DepthConfig,
    /// Do not measure the same network untrained.
    pub skip_untrained: bool,
}

impl Depth {
    /// Name of the protocol.
    pub const NAME: &'static str = "depth";

    /// Returns the protocol with the published settings for NYU.
    pub fn published(train: DepthFolder, test: DepthFolder) -> Self {
        Self {
            train,
            test,
            max_train: None,
            max_test: None,
            workers: None,
            divisor: 1000.0,
            config: DepthConfig::default(),
            skip_untrained: false,
        }
    }

    fn check_numbers(&self) -> Result<()> {
        positive("divisor", self.divisor)?;
        positive("max_depth", self.config.max_depth)?;
        positive("lr", self.config.lr)
    }

    fn options(&self, folder: &DepthFolder) -> Result<DepthOptions> {
        let mut options = DepthOptions::new(self.divisor)?;
        options.list.clone_from(&folder.list);
        Ok(options)
    }

    /// Opens a set in the pixel format of the network.
    fn open(
        &self,
        folder: &DepthFolder,
        subject: &Subject,
        observer: &dyn Observer,
    ) -> Result<DepthSet> {
        let mut options = self.options(folder)?;
        options.pixels = subject.pixels();
        let set = DepthSet::open(&folder.images, &folder.maps, options)?;
        set.notices().iter().for_each(|text| observer.note(text));
        Ok(set)
    }
}

impl Protocol for Depth {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn check(&self) -> Result<()> {
        self.check_numbers()?;
        for folder in [&self.train, &self.test] {
            DepthSet::open(&folder.images, &folder.maps, self.options(folder)?)?;
        }
        Ok(())
    }

    fn measure(&self, subject: &Subject, observer: &dyn Observer) -> Result<Vec<Record>> {
        self.check_numbers()?;
        let open = |folder| self.open(folder, subject, observer);
        let (train, test) = (open(&self.train)?, open(&self.test)?);
        let data = |set, limit| DepthData { set, limit, workers: self.workers };
        let (train, test) = (data(&train, self.max_train), data(&test, self.max_test));
        // Training may take days, so what would fail after it is checked first.
        check_scored(&test, &self.config)?;
        let task = Task { protocol: self, subject, observer, train, test };
        let meter = subject.metered(&subject.weights.backbone);
        let trained = task.scored(&meter, &subject.fingerprint, &|| meter.restart())?;
        let spread = meter.spread()?;
        let (mean_map, _, _) = task.tested(&MeanMap::new(&train, &self.config)?)?;
        let mut record = task.record(&trained)?;
        spread.into_iter().for_each(|spread| record.spread(spread));
        put(&mut record, "mean map", &mean_map);
        if !self.skip_untrained {
            let random = subject.untrained()?;
            let network = random.network();
            let untrained = task.scored(network.backbone, network.fingerprint, &|| ())?;
            put(&mut record, "untrained", &untrained.score);
        }
        Ok(vec![record])
    }
}

fn put(record: &mut Record, of: &str, score: &DepthScore) {
    score.named().iter().for_each(|(name, value)| record.baseline(of, name, *value));
}

/// Everything that the trained and the untrained network share.
struct Task<'a> {
    protocol: &'a Depth,
    subject: &'a Subject,
    observer: &'a dyn Observer,
    train: DepthData<'a>,
    test: DepthData<'a>,
}

/// Scores of one network.
struct OfNetwork {
    score: DepthScore,
    /// Numbers of images that were trained on and scored.
    images: [usize; 2],
    notes: Vec<String>,
}

impl Task<'_> {
    /// Trains a head, and calls `tests` before its test.
    fn scored(
        &self,
        network: &dyn DenseExtractor,
        fingerprint: &str,
        tests: &dyn Fn(),
    ) -> Result<OfNetwork> {
        let (config, frozen) = (&self.protocol.config, self.subject.frozen(network));
        let network = DenseNetwork { frozen, layers: config.layers.layers(), class_token: true };
        let file = |folder| state_file(folder, fingerprint, &network, &self.train, config);
        let state = self.subject.heads.as_deref().map(file).transpose()?;
        let total = usize::try_from(config.iterations).unwrap_or(usize::MAX);
        let mut counter = Counter::new(self.observer, "iterations", total);
        let mut progress = |done: u64, _| counter.set(usize::try_from(done).unwrap_or(usize::MAX));
        let (head, report) = train(network, &self.train, config, state.as_ref(), &mut progress)?;
        counter.finish();
        if report.resumed_at > 0 {
            let at = report.resumed_at;
            let name = self.subject.name_of(fingerprint);
            self.observer.note(&format!("{name}: training of the head resumed at iteration {at}"));
        }
        let estimator = LinearEstimator { network, head, config: config.clone() };
        tests();
        let (score, images, note) = self.tested(&estimator)?;
        let skipped = skipped("training", &report.broken, self.observer);
        let notes = [skipped, note].into_iter().flatten().collect();
        Ok(OfNetwork { score, images: [report.images, images], notes })
    }

    /// Scores an estimator on the test set. Returns the score, the number of images, and a sentence
    /// about images that were left out.
    fn tested(&self, estimator: &dyn Estimator) -> Result<(DepthScore, usize, Option<String>)> {
        let all = self.test.set.len();
        let total = self.test.limit.unwrap_or(all).min(all);
        let mut counter = Counter::new(self.observer, "test images estimated", total);
        let config = &self.protocol.config;
        let evaluated = evaluate(&self.test, estimator, config, &mut || counter.add())?;
        counter.finish();
        let skipped = skipped("test", &evaluated.broken, self.observer);
        Ok((evaluated.score, evaluated.images, skipped))
    }

    fn record(&self, trained: &OfNetwork) -> Result<Record> {
        let mut record = self.subject.record(self.protocol.name());
        if let Value::Object(settings) = serde_json::to_value(&self.protocol.config)? {
            settings.into_iter().for_each(|(name, value)| record.set(&name, value));
        }
        let [height, width] = self.protocol.config.crop;
        record.crop = (height == width).then_some(height);
        record.set("divisor", self.protocol.divisor);
        record.limits([self.train.limit, self.test.limit]);
        record.data = vec![
            self.train.used("train", trained.images[0]),
            self.test.used("test", trained.images[1]),
        ];
        trained.score.named().iter().for_each(|(name, value)| record.score(name, *value));
        trained.notes.iter().for_each(|text| record.note(text));
        Ok(record)
    }
}
