//! Pages, the smallest parts of a parquet file that can be read, and a cache of them.
//!
//! A page contains one image or thousands, depending on its writer, and can only be decompressed as
//! a whole. The most recently read pages are kept within a limit, so that each page is decompressed
//! once if images are read in order or the dataset fits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parquet::data_type::ByteArray;

use crate::error::Result;

/// The images of one page, which share the memory of the page and its dictionary.
pub(super) struct Page {
    images: Vec<Option<ByteArray>>,
    /// Memory that the page takes, in bytes, with shared parts counted once.
    bytes: usize,
}

impl Page {
    pub(super) fn new(images: Vec<Option<ByteArray>>) -> Self {
        let mut places: Vec<(*const u8, usize)> =
            images.iter().flatten().map(|image| (image.data().as_ptr(), image.len())).collect();
        places.sort_unstable();
        places.dedup();
        let slots = images.len() * size_of::<Option<ByteArray>>();
        let bytes = slots + places.iter().map(|(_, len)| len).sum::<usize>();
        Self { images, bytes }
    }

    /// Returns the image in a row of this page, or `None` if it is null.
    pub(super) fn image(&self, row: usize) -> Option<Vec<u8>> {
        self.images.get(row)?.as_ref().map(|image| image.data().to_vec())
    }
}

/// Numbers of the file, the row group, and the page.
pub(super) type Key = (usize, usize, usize);

/// A page that is cached or being read. Other threads that need it wait for the lock.
type Slot = Arc<Mutex<Option<Arc<Page>>>>;

/// The most recently read pages, up to a limit. Pages that do not fit are held only by the threads
/// that use them.
pub(super) struct PageCache {
    limit: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    pages: HashMap<Key, Entry>,
    bytes: usize,
    /// Number of accesses so far.
    now: u64,
}

struct Entry {
    slot: Slot,
    /// Size of the page; 0 until it is read.
    bytes: usize,
    used: u64,
}

impl PageCache {
    /// Creates a cache of at most `gb` GB.
    pub(super) fn new(gb: f64) -> Self {
        Self { limit: (gb * 1e9) as usize, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the page `key`, and calls `read` to read it unless it is cached.
    ///
    /// # Errors
    /// Returns the error of `read`, in which case nothing is cached.
    pub(super) fn get(&self, key: Key, read: impl FnOnce() -> Result<Page>) -> Result<Arc<Page>> {
        let slot = self.kept().slot(key);
        let mut page = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = &*page {
            return Ok(page.clone());
        }
        let outcome = read().map(Arc::new);
        let mut kept = self.kept();
        match &outcome {
            Ok(page) if page.bytes <= self.limit => kept.add(key, page.bytes),
            _ => drop(kept.pages.remove(&key)),
        }
        kept.shrink(self.limit);
        drop(kept);
        let read = outcome?;
        *page = Some(read.clone());
        Ok(read)
    }
}

impl Kept {
    fn slot(&mut self, key: Key) -> Slot {
        self.now += 1;
        let new = || Entry { slot: Slot::default(), bytes: 0, used: 0 };
        let entry = self.pages.entry(key).or_insert_with(new);
        entry.used = self.now;
        entry.slot.clone()
    }

    /// Records that the page `key` was read.
    fn add(&mut self, key: Key, bytes: usize) {
        // The entry is absent if reading failed for another thread. What this thread has read is
        // then not cached.
        if let Some(entry) = self.pages.get_mut(&key).filter(|entry| entry.bytes == 0) {
            entry.bytes = bytes;
            self.bytes += bytes;
        }
    }

    /// Removes the least recently used pages until the rest is within the limit.
    fn shrink(&mut self, limit: usize) {
        while self.bytes > limit {
            let read = self.pages.iter().filter(|(_, entry)| entry.bytes > 0);
            let Some(oldest) = read.min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key) else {
                return;
            };
            self.bytes -= self.pages.remove(&oldest).map_or(0, |entry| entry.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::Error;

    fn page(bytes: usize) -> Page {
        Page::new(vec![Some(ByteArray::from(vec![7; bytes])), None])
    }

    #[test]
    fn shared_images_count_once() {
        let image = ByteArray::from(vec![0; 1000]);
        let many = Page::new(vec![Some(image.clone()), Some(image), None]);
        assert!((1000..1200).contains(&many.bytes), "{}", many.bytes);
        assert_eq!(
            (many.image(1).unwrap().len(), many.image(2), many.image(3)),
            (1000, None, None)
        );
    }

    #[test]
    fn pages_are_kept_within_the_limit_and_the_oldest_go_first() {
        let cache = PageCache::new(10_500e-9);
        let reads = Cell::new(0);
        let get = |number: usize| {
            let read = || {
                reads.set(reads.get() + 1);
                Ok(page(3000))
            };
            cache.get((0, 0, number), read).unwrap();
            assert!(cache.kept().bytes <= 10_500);
            reads.get()
        };
        assert_eq!([get(0), get(1), get(2), get(0), get(3), get(0), get(2)], [1, 2, 3, 3, 4, 4, 4]);
        assert_eq!(get(1), 5, "the one not used for longest went");
        assert_eq!((0..1000).map(get).last(), Some(1002));
        assert_eq!(cache.kept().pages.len(), 3);
    }

    #[test]
    fn what_fails_or_is_too_large_is_not_kept() {
        let fails = || Err(Error::Index { index: 0, len: 0 });
        let unlimited = PageCache::new(f64::INFINITY);
        (0..2).for_each(|page| assert!(unlimited.get((0, 0, page), fails).is_err()));
        let Kept { pages, bytes, .. } = &*unlimited.kept();
        assert_eq!((pages.len(), *bytes), (0, 0));
        let cache = PageCache::new(1000e-9);
        assert!(cache.get((0, 0, 0), fails).is_err());
        assert!(cache.get((0, 0, 0), || Ok(page(10))).is_ok());
        assert!(cache.get((0, 0, 1), || Ok(page(5000))).is_ok());
        let kept = cache.kept();
        assert_eq!(kept.pages.keys().copied().collect::<Vec<_>>(), [(0, 0, 0)]);
        assert!((10..1000).contains(&kept.bytes));
    }

    #[test]
    fn threads_that_want_one_page_read_it_once() {
        let (cache, reads) = (PageCache::new(1.0), Mutex::new(0));
        let start = std::sync::Barrier::new(4);
        let read = || {
            *reads.lock().unwrap() += 1;
            Ok(page(10))
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    cache.get((0, 0, 0), read).unwrap()
                });
            }
        });
        assert_eq!(*reads.lock().unwrap(), 1);
    }
}
