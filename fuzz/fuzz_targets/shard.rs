//! A tar or tar.gz shard, and the index of a shard.
#![no_main]

use std::path::Path;

use data::{DataConfig, SourceKind};

thread_local! {
    static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("a temporary folder");
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    FOLDER.with(|folder| {
        let shard = folder.path().join("s.tar");
        let index = folder.path().join("s.tar.index");
        let _ = std::fs::remove_file(&index);
        std::fs::write(&shard, bytes).expect("a file in it");
        read(&shard);
        // The same bytes as lines of an index, under a head that vouches for them.
        let images = bytes.iter().filter(|&&byte| byte == b'\n').count();
        let (length, crc) = (bytes.len(), crc32fast::hash(bytes));
        let head = format!(
            "{{\"format\":\"simdino-tar-index\",\"version\":1,\"shard_bytes\":{length},\
             \"images\":{images},\"crc32\":{crc}}}\n"
        );
        std::fs::write(&index, [head.as_bytes(), bytes].concat()).expect("a file in it");
        read(&shard);
    });
});

fn read(shard: &Path) {
    let path = shard.to_string_lossy().into_owned();
    let config = DataConfig { path, source: SourceKind::Shards, ..DataConfig::default() };
    let Ok(dataset) = data::open(&config) else { return };
    for index in 0..dataset.len().min(4) {
        let _ = (dataset.image(index), dataset.name(index), dataset.label(index));
    }
}
