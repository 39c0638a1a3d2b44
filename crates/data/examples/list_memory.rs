//! Measures the time and memory for opening a long list, without and with its cache, or a large
//! folder.
//!
//! `cargo run -p simdino-data --example list_memory -- [IMAGES] [folder]` writes a list of `IMAGES`
//! lines (10 million by default) to a temporary folder, or that many empty files, opens it twice,
//! each time in a new process, and prints the seconds and the resident bytes per image.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use data::{DataConfig, SourceKind};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [open, list] = arguments.as_slice()
        && open == "open"
    {
        return measure(list);
    }
    let images: usize = arguments.first().map_or(Ok(10_000_000), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let path = if arguments.iter().any(|word| word == "folder") {
        write_files(folder.path(), images)?;
        folder.path().join("train")
    } else {
        let list = folder.path().join("list.csv");
        write_list(&list, images)?;
        println!("{images} images, {} bytes of list", std::fs::metadata(&list)?.len());
        list
    };
    for how in ["first", "again"] {
        print!("{how}: ");
        std::io::stdout().flush()?;
        let status = Command::new(std::env::current_exe()?).arg("open").arg(&path).status()?;
        if !status.success() {
            return Err(format!("opening the list failed ({status})").into());
        }
    }
    Ok(())
}

fn write_list(list: &Path, images: usize) -> Result<()> {
    std::fs::create_dir_all(list.with_file_name("train/n00000000"))?;
    std::fs::write(list.with_file_name("train/n00000000/n00000000_0.JPEG"), b"")?;
    let mut out = std::io::BufWriter::new(std::fs::File::create(list)?);
    writeln!(out, "path,label")?;
    for i in 0..images {
        let class = i % 1000;
        writeln!(out, "train/n{class:08}/n{class:08}_{i}.JPEG,n{class:08}")?;
    }
    Ok(out.flush()?)
}

fn write_files(folder: &Path, images: usize) -> Result<()> {
    for i in 0..images {
        let class = folder.join(format!("train/n{:08}", i % 1000));
        if i < 1000 {
            std::fs::create_dir_all(&class)?;
        }
        std::fs::File::create(class.join(format!("n{:08}_{i}.JPEG", i % 1000)))?;
    }
    Ok(())
}

fn measure(list: &str) -> Result<()> {
    let before = resident_bytes()?;
    let start = Instant::now();
    let config =
        DataConfig { path: Some(list.into()), source: SourceKind::Auto, ..DataConfig::default() };
    let dataset = data::open(&config)?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = resident_bytes()?.saturating_sub(before) as f64 / dataset.len() as f64;
    println!("{seconds:.2} s, {bytes:.1} bytes an image");
    Ok(())
}

fn resident_bytes() -> Result<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split_whitespace().nth(1).ok_or("no resident size in /proc/self/statm")?;
    Ok(pages.parse::<usize>()? * 4096)
}
