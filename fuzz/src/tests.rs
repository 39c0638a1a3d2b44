//! Each target from its seeds, and from the same few thousand damaged copies of them in every run.
//! `SIMDINO_MUTATIONS=1000000 cargo test -p simdino-fuzz` makes more.

use std::panic::{catch_unwind, resume_unwind};

use rayon::prelude::*;

use crate::damage::{Draws, count, mutate};
use crate::{TARGETS, Target};

/// A target that refuses everything, or accepts everything, has seen nothing of its reader.
fn attack(name: &str) {
    let Target { run, seeds, .. } = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = seeds();
    for (number, seed) in seeds.iter().enumerate() {
        assert!(run(seed), "{name}: seed {number} is refused");
    }
    let count = count();
    let accepted = (0..count).into_par_iter().filter(|&number| {
        let mut bytes = seeds[number as usize % seeds.len()].clone();
        mutate(&mut bytes, &mut Draws::of(number << 32));
        catch_unwind(|| run(&bytes)).unwrap_or_else(|finding| {
            let path = std::env::temp_dir().join(format!("simdino-fuzz-{name}-{number}"));
            std::fs::write(&path, &bytes).unwrap();
            println!("{name}: the input is in {}", path.display());
            resume_unwind(finding)
        })
    });
    let accepted = accepted.count() as u64;
    println!("{name}: {} seeds, {count} damaged, {accepted} of them accepted", seeds.len());
    assert!(0 < accepted && accepted < count, "{name}: {accepted} of {count} were accepted");
}

macro_rules! attacks {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            attack(stringify!($name));
        })*

        #[test]
        fn every_target_is_run_here() {
            assert_eq!(TARGETS.map(|target| target.name), [$(stringify!($name)),*]);
        }
    };
}

attacks!(image channels jpeg list shard index parquet pth safetensors);
