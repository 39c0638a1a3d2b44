//! Measures the nearest-patch search for `benches/peers/hummingbird.py`:
//!
//! ```text
//! nearest KEYS QUERIES WIDTH K ROUNDS THREADS
//! ```
//!
//! prints the shortest time in seconds as JSON.

use std::time::Instant;

use eval::nearest::{Index, Similarity};
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<i64> =
        std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let &[keys, queries, width, k, rounds, threads] = numbers.as_slice() else {
        return Err("needs KEYS QUERIES WIDTH K ROUNDS THREADS".into());
    };
    tch::set_num_threads(threads as i32);
    tch::manual_seed(0);
    let draw = |rows| Tensor::randn([rows, width], (Kind::Float, Device::Cpu));
    let (keys, queries) = (draw(keys), draw(queries));
    let index = Index::new(&keys, Similarity::Cosine)?;
    let mut shortest = f64::INFINITY;
    for _ in 0..rounds {
        let start = Instant::now();
        index.nearest(&queries, k as usize)?;
        shortest = shortest.min(start.elapsed().as_secs_f64());
    }
    println!("{}", serde_json::json!({ "nearest_s": shortest }));
    Ok(())
}
