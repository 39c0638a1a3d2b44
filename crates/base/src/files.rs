//! Atomic file writes: a file is either complete or absent.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

/// Atomically replaces the contents of the file `path` with `bytes`.
///
/// # Errors
/// Same as for [`replace_atomic`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// Atomically replaces the contents of the file `path` with what `write` writes.
///
/// # Errors
/// Same as for [`replace_atomic`].
pub fn write_atomic_with<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    replace_atomic(path, |unfinished| {
        let file = OpenOptions::new().write(true).open(unfinished)?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        write(&mut file)?;
        Ok(file.flush()?)
    })
}

/// Atomically replaces the file `path` with one that `make` writes.
///
/// `make` receives the path of an empty temporary file in the same folder. That file is then
/// flushed to disk and renamed to `path`, so a reader sees either the old file or the new one,
/// never a partial one, even after a power failure. It has the permissions of any new file.
///
/// # Errors
/// Returns an error if the folder does not exist or is not writable, the disk is full, or `make`
/// fails; the old file is then unchanged, and nothing is left behind. An error of
/// [`flush_folder`] is also returned, although the file has been replaced by then.
pub fn replace_atomic<E: From<io::Error>>(
    path: &Path,
    make: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let unfinished = unfinished(folder, path)?;
    let finish = || -> Result<(), E> {
        make(&unfinished)?;
        File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, path)?;
        Ok(())
    };
    if let Err(error) = finish() {
        // Report the original error, not a failure to clean up.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    Ok(flush_folder(folder)?)
}

/// Flushes the entries of a folder to disk, so that a rename in it survives a power failure.
///
/// Does nothing where the system, the file system, or the permissions of the folder rule this out:
/// the files themselves are complete either way.
///
/// # Errors
/// Returns an error if the folder does not exist or the disk fails.
pub fn flush_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if is_refusal(&error) => Ok(()),
        result => result,
    }
}

/// Returns whether `error` means that flushing a folder is unsupported or not permitted, rather
/// than that it was attempted and failed.
fn is_refusal(error: &io::Error) -> bool {
    // File systems that do not support this return EINVAL or ENOTSUP (95 on Linux, 45 and 102 on
    // macOS).
    matches!(
        error.kind(),
        ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::PermissionDenied
    ) || matches!(error.raw_os_error(), Some(95 | 45 | 102))
}

/// Creates an empty file with a unique name next to `path`. The name is hidden, so that readers of
/// the folder do not mistake it for content. A name that exists is skipped: a process on another
/// machine that shares the folder may have the same process ID.
fn unfinished(folder: &Path, path: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(ErrorKind::InvalidFilename)?;
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{count}.new", process::id()));
        let hidden = folder.join(hidden);
        match OpenOptions::new().write(true).create_new(true).open(&hidden) {
            Ok(_) => return Ok(hidden),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_file_is_replaced_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new and longer").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new and longer");
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomic(&path, b"old").unwrap();
        let failed = write_atomic_with(&path, |file| {
            file.write_all(&[0; 3 << 20])?;
            Err(io::Error::other("the tensor is gone"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "the tensor is gone");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.txt"]);
        // A folder is in the way of the rename, the parent folder is missing, and there is no name.
        fs::create_dir_all(folder.path().join("b/full")).unwrap();
        assert!(write_atomic(&folder.path().join("b"), b"x").is_err());
        assert!(write_atomic(&folder.path().join("c/a.txt"), b"x").is_err());
        assert!(write_atomic(Path::new("/"), b"x").is_err());
        assert_eq!(names(folder.path()).len(), 2);
    }

    #[test]
    fn names_of_another_process_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let theirs: Vec<PathBuf> = (0..1000)
            .map(|count| folder.path().join(format!(".a.txt.{}-{count}.new", process::id())))
            .collect();
        theirs.iter().for_each(|path| fs::write(path, "theirs").unwrap());
        write_atomic(&path, b"ours").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ours");
        assert!(theirs.iter().all(|path| fs::read(path).unwrap() == b"theirs"));
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_cannot_be_flushed_is_no_failure() {
        // EPERM, EACCES, EINVAL, ENOTSUP; EIO, ENOSPC.
        for (number, refusal) in
            [(1, true), (13, true), (22, true), (95, true), (5, false), (28, false)]
        {
            assert_eq!(is_refusal(&io::Error::from_raw_os_error(number)), refusal, "{number}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(flush_folder(folder.path()).is_ok());
        assert!(flush_folder(&folder.path().join("nowhere")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn the_permissions_are_those_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode =
            |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        fs::write(folder.path().join("plain"), b"x").unwrap();
        write_atomic(&folder.path().join("atomic"), b"x").unwrap();
        assert_eq!(mode("atomic"), mode("plain"));
    }
}
