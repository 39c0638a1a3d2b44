//! Damaged weight files by the thousand never make a reader allocate much memory. The test is alone in its process,
//! because it measures the memory of the process.

use simdino_fuzz::damage::{Draws, count, mutate};
use simdino_fuzz::{TARGETS, Target};

const MOST_KIB: u64 = 32 << 10;

/// Most memory that this process had at once, in KiB.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn damaged_weight_files_cost_little_memory() {
    let targets = TARGETS.into_iter().filter(|t| ["pth", "safetensors"].contains(&t.name));
    let files: Vec<(Target, Vec<u8>)> = targets
        .flat_map(|target| (target.seeds)().into_iter().map(move |seed| (target, seed)))
        .collect();
    for (target, seed) in &files {
        assert!((target.run)(seed), "{}: a seed is refused", target.name);
    }
    let before = peak();
    let (mut draws, mut whole) = (Draws::of(1), 0);
    for _ in 0..count() {
        let (target, seed) = &files[draws.below(files.len())];
        let mut bytes = seed.clone();
        mutate(&mut bytes, &mut draws);
        whole += u64::from((target.run)(&bytes));
    }
    let grown = peak().zip(before).map(|(after, before)| after - before);
    println!("{} files, {whole} still readable, memory grew by {grown:?} KiB at most", count());
    assert!(0 < whole && whole < count(), "{whole} of {} were readable", count());
    assert!(grown.is_none_or(|kib| kib < MOST_KIB), "memory grew by {grown:?} KiB");
}
