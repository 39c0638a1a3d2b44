//! What the coding rate means: how much of the space a batch of features fills.
//!
//! ```text
//! cargo run -p simdino-objectives --example coding_rate
//! ```
//!
//! The same number of unit rows spreads over more and more directions. The rate rises from its
//! floor, where all rows are equal (collapse), to its ceiling, where all directions are used
//! evenly.

use objectives::coding_rate::{RateOptions, coding_rate};
use objectives::gradient_scale::{rate_ceiling, rate_floor};
use objectives::health::spread;
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tch::manual_seed(0);
    let (n, d) = (512, 64); // rows, width
    let eps = 0.5; // the paper's eps: the smaller, the finer the details that count
    let alpha = d as f64 / (n as f64 * eps * eps);
    let (floor, ceiling) = (rate_floor(alpha, n), rate_ceiling(alpha, n, d));
    println!("{n} unit rows of width {d}, eps {eps}: floor {floor:.2}, ceiling {ceiling:.2}\n");
    println!("directions   rate  position  effective rank  gradient norm");
    for directions in [1, 2, 4, 8, 16, 32, 64] {
        let z = rows_in(directions, n as i64, d as i64);
        let rate = coding_rate(&z, &RateOptions::new(alpha))?;
        let value = rate.value.double_value(&[0]);
        // The metric rate/position of a run.
        let position = ((value - floor) / (ceiling - floor)).max(0.0);
        let (_, rank) = spread(&z)?;
        let norm = rate.gradient.norm().double_value(&[]);
        println!("{directions:>10} {value:>6.2} {position:>9.2} {rank:>15.1} {norm:>14.3}");
    }
    Ok(())
}

/// Returns random unit rows in the first `directions` of `d` coordinates, `[n, d]`.
fn rows_in(directions: i64, n: i64, d: i64) -> Tensor {
    let inside = Tensor::randn([n, directions], (Kind::Float, Device::Cpu));
    // A single direction has two signs: take one, so that the rows are equal.
    let inside = if directions == 1 { inside.abs() } else { inside };
    let unit = &inside / inside.norm_scalaropt_dim(2.0, [1].as_slice(), true);
    unit.constant_pad_nd([0, d - directions]) // [n, directions] -> [n, d]
}
