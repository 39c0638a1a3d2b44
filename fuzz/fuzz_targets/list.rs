//! A list file of each kind.
#![no_main]

use data::{DataConfig, SourceKind};

thread_local! {
    static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("a temporary folder");
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    FOLDER.with(|folder| {
        for name in ["l.txt", "l.csv", "l.jsonl"] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("a file in it");
            let path = path.to_string_lossy().into_owned();
            let config = DataConfig { path, source: SourceKind::List, ..DataConfig::default() };
            let Ok(dataset) = data::open(&config) else { continue };
            for index in 0..dataset.len().min(4) {
                let _ = (dataset.image(index), dataset.name(index), dataset.label(index));
            }
        }
    });
});
