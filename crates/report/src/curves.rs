//! The curves of a run: which metrics are shown in which charts.

use trainer::metrics::Record;

use super::chart::{Chart, Series};
use super::markup::{absent, section};
use super::run::Run;

/// Returns the section with all curves except those of probes.
pub(crate) fn training(run: &Run) -> String {
    if let Err(why) = &run.records {
        return absent("Curves", why);
    }
    let charts = [loss(run), rate(run), targets(run), rank(run), gradients(run)]
        .into_iter()
        .chain(PLAIN.iter().map(|plain| plain.chart(run)))
        .chain([memory(run)])
        .filter_map(|chart| chart.to_html());
    let html: String = charts.collect();
    if html.is_empty() {
        return absent("Curves", "metrics.jsonl has no values of training steps yet");
    }
    section("curves", "Training", &format!("<div class=\"charts\">\n{html}</div>\n"))
}

/// Draws the measurements of probes over the epochs; empty without a probe.
pub(crate) fn probes(run: &Run) -> String {
    [knn(run), logistic(run), segmentation(run), directions(run)]
        .into_iter()
        .filter_map(|chart| chart.to_html())
        .collect()
}

/// Charts the k-NN accuracy with its baselines.
fn knn(run: &Run) -> Chart {
    let guide = |name: &str, key: &str| run.last(key).map(|share| (name.to_owned(), 100.0 * share));
    Chart {
        title: "k-NN accuracy during training".into(),
        note: "k-NN accuracy on the test images, in percent".into(),
        guides: [guide("untrained", "probe/untrained"), guide("raw pixels", "probe/pixels")]
            .into_iter()
            .flatten()
            .collect(),
        ..percent_chart(run, "probe/knn_top1")
    }
}

fn logistic(run: &Run) -> Chart {
    Chart {
        title: "Logistic regression during training".into(),
        note: "accuracy of a regression on frozen features, in percent of the held-out images"
            .into(),
        guides: at_start(run, "probe/logistic_top1"),
        ..percent_chart(run, "probe/logistic_top1")
    }
}

fn segmentation(run: &Run) -> Chart {
    Chart {
        title: "Segmentation during training".into(),
        note: "mean IoU of k-NN segmentation, in percent".into(),
        guides: at_start(run, "probe/segment_knn_miou"),
        ..percent_chart(run, "probe/segment_knn_miou")
    }
}

/// Charts how many directions the features of the probe's images use.
fn directions(run: &Run) -> Chart {
    Chart {
        title: "Dimensionality of the features".into(),
        note: "on the probe's images; 1 is a collapse".into(),
        x_label: "epoch".into(),
        series: present(
            run,
            &[
                ("effective rank", "probe/effective_rank"),
                ("effective dimension", "probe/effective_dimension"),
            ],
        ),
        from_zero: true,
        ..Chart::default()
    }
}

/// Charts a fraction over the epochs, in percent.
fn percent_chart(run: &Run, key: &str) -> Chart {
    let percent = |(x, share): (f64, f64)| (x, 100.0 * share);
    let points = points(run, key).into_iter().map(percent).collect();
    Chart {
        x_label: "epoch".into(),
        series: vec![Series { name: "this network".into(), points, ..Series::default() }],
        ..Chart::default()
    }
}

/// Returns the value of the network at step 0 as a guide in percent, the baseline for training;
/// empty if step 0 was not measured.
fn at_start(run: &Run, key: &str) -> Vec<(String, f64)> {
    let first = run.records().iter().find(|record| record.get(key).is_some());
    let first = first.filter(|record| record.step == 0).and_then(|record| record.get(key));
    first.map(|share| ("at the start".to_owned(), 100.0 * share)).into_iter().collect()
}

fn loss(run: &Run) -> Chart {
    let note = match run.last("loss/compression") {
        Some(_) => "compression pulls views of an image together, expansion spreads images out",
        None => "cross-entropy between the prototype scores of student and teacher",
    };
    let uniform = run.last("loss/uniform").map(|value| ("uniform guess".to_owned(), value));
    Chart {
        title: "Loss".into(),
        note: note.into(),
        x_label: "epoch".into(),
        series: present(
            run,
            &[
                ("total", "loss/total"),
                ("compression", "loss/compression"),
                ("expansion", "loss/expansion"),
                ("class tokens", "loss/cls"),
                ("masked patches", "loss/patches"),
                ("KoLeo", "loss/koleo"),
            ],
        ),
        guides: uniform.into_iter().collect(),
        ..Chart::default()
    }
}

/// Charts how confident the teacher is, and whether it gives the same answer for all images.
fn targets(run: &Run) -> Chart {
    Chart {
        title: "Teacher entropy".into(),
        note: "relative to the maximum: 1 is a uniform output; 0 for the mean is the same output \
             for all images"
            .into(),
        x_label: "epoch".into(),
        series: present(
            run,
            &[("per image", "teacher/entropy"), ("of the mean output", "teacher/entropy_of_mean")],
        ),
        from_zero: true,
        ..Chart::default()
    }
}

fn rank(run: &Run) -> Chart {
    Chart {
        title: "Effective rank".into(),
        note: "number of directions that the teacher's features span".into(),
        x_label: "epoch".into(),
        series: present(run, &[("within a batch", "health/effective_rank")]),
        from_zero: true,
        ..Chart::default()
    }
}

fn gradients(run: &Run) -> Chart {
    Chart {
        title: "Gradient norm".into(),
        note: "before clipping".into(),
        x_label: "epoch".into(),
        series: present(
            run,
            &[
                ("all", "optim/grad_norm"),
                ("backbone", "optim/grad_norm_backbone"),
                ("head", "optim/grad_norm_head"),
                ("patch head", "optim/grad_norm_patch_head"),
            ],
        ),
        from_zero: true,
        ..Chart::default()
    }
}

fn memory(run: &Run) -> Chart {
    Chart {
        title: "Memory".into(),
        note: "in GB".into(),
        x_label: "epoch".into(),
        series: present(
            run,
            &[("process", "memory/process_gb"), ("device, peak", "memory/device_gb")],
        ),
        from_zero: true,
        ..Chart::default()
    }
}

/// Returns a line for each of the metrics that the run recorded.
fn present(run: &Run, lines: &[(&str, &str)]) -> Vec<Series> {
    lines
        .iter()
        .map(|&(name, key)| Series {
            name: name.into(),
            points: points(run, key),
            ..Series::default()
        })
        .filter(|series| !series.points.is_empty())
        .collect()
}

/// Charts the expansion, which indicates collapse: at the floor, all features are equal; at the
/// ceiling, they are spread evenly over the sphere.
fn rate(run: &Run) -> Chart {
    let (floor, ceiling) = (run.last("rate/floor"), run.last("rate/ceiling"));
    let guides = [("floor: collapsed", floor), ("ceiling", ceiling)];
    Chart {
        title: "Coding rate".into(),
        note:
            "between its floor, where all features are equal, and its ceiling, where they spread \
             evenly"
                .into(),
        x_label: "epoch".into(),
        series: vec![Series {
            name: "expansion".into(),
            points: points(run, "loss/expansion"),
            ..Series::default()
        }],
        guides: guides
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)))
            .collect(),
        band: floor.zip(ceiling),
        ..Chart::default()
    }
}

/// A chart of a single metric.
struct Plain {
    title: &'static str,
    note: &'static str,
    key: &'static str,
    factor: f64,
    from_zero: bool,
}

const PLAIN: [Plain; 6] = [
    Plain { title: "Learning rate", note: "", key: "optim/lr", factor: 1.0, from_zero: true },
    Plain {
        title: "Update ratio",
        note: "norm of the update of a step relative to that of the weights, in thousandths",
        key: "optim/update_ratio",
        factor: 1000.0,
        from_zero: true,
    },
    Plain {
        title: "Weight decay",
        note: "",
        key: "optim/weight_decay",
        factor: 1.0,
        from_zero: false,
    },
    Plain {
        title: "Teacher momentum",
        note: "",
        key: "optim/momentum_teacher",
        factor: 1.0,
        from_zero: false,
    },
    Plain {
        title: "Throughput",
        note: "images per second",
        key: "speed/img_s",
        factor: 1.0,
        from_zero: true,
    },
    Plain {
        title: "Waiting for data",
        note: "percent of the step time",
        key: "speed/data_wait",
        factor: 100.0,
        from_zero: true,
    },
];

impl Plain {
    fn chart(&self, run: &Run) -> Chart {
        let points = points(run, self.key).into_iter().map(|(x, y)| (x, self.factor * y));
        let name = self.title.to_lowercase();
        Chart {
            title: self.title.into(),
            note: self.note.into(),
            x_label: "epoch".into(),
            series: vec![Series { name, points: points.collect(), ..Series::default() }],
            from_zero: self.from_zero,
            ..Chart::default()
        }
    }
}

/// Returns the values of a metric as points of (epoch, value).
pub(crate) fn points(run: &Run, key: &str) -> Vec<(f64, f64)> {
    let point = |record: &Record| record.get(key).map(|value| (record.epoch, value));
    run.records().iter().filter_map(point).filter(|(epoch, _)| epoch.is_finite()).collect()
}
