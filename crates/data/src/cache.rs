//! Caches images in memory from one epoch to the next, within a budget.
//!
//! Cached images are never evicted: every epoch reads all images once in a new order, so an evicted
//! image would be needed just as soon as the one that replaced it. A cache that holds half of the
//! images saves half of the reads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::CacheKind;
use crate::source::Payload;
use decode::Image;

/// Number of parts, each with its own lock, so that threads rarely wait for each other.
const PARTS: usize = 16;
/// Bytes that an entry takes in addition to the image itself: its slot in the map, the reference
/// counts, and the overhead of the heap.
const OVERHEAD: u64 = 160;

type Part = RwLock<HashMap<u32, Arc<Payload>>>;

/// Cached images by index.
pub(crate) struct Cache {
    kind: CacheKind,
    parts: [Part; PARTS],
    bytes_left: AtomicU64,
}

impl Cache {
    /// Creates a cache of up to `budget_gb` GB, including its own tables.
    pub(crate) fn new(kind: CacheKind, budget_gb: f64) -> Self {
        let bytes_left = AtomicU64::new((budget_gb * 1e9) as u64);
        Self { kind, parts: Default::default(), bytes_left }
    }

    /// Returns image `index`, if it is cached.
    pub(crate) fn get(&self, index: usize) -> Option<Arc<Payload>> {
        if self.kind == CacheKind::None {
            return None;
        }
        let index = u32::try_from(index).ok()?;
        self.part(index).read().unwrap_or_else(PoisonError::into_inner).get(&index).cloned()
    }

    /// Caches image `index` if there is room: the bytes of its file, or its decoded pixels. Callers
    /// must pass only images that could be decoded.
    pub(crate) fn offer(&self, index: usize, read: Payload, decoded: &Image) {
        let (bytes, keep): (_, Box<dyn FnOnce() -> Payload>) = match (self.kind, read) {
            (CacheKind::Encoded, Payload::Encoded(mut bytes)) => (
                bytes.len(),
                Box::new(move || {
                    bytes.shrink_to_fit();
                    Payload::Encoded(bytes)
                }),
            ),
            (CacheKind::Decoded, _) => {
                (decoded.data().len(), Box::new(|| Payload::Pixels(decoded.clone())))
            }
            (CacheKind::None | CacheKind::Encoded, _) => return,
        };
        let (Ok(index), true) = (u32::try_from(index), self.take(bytes as u64 + OVERHEAD)) else {
            return;
        };
        let mut part = self.part(index).write().unwrap_or_else(PoisonError::into_inner);
        if part.insert(index, Arc::new(keep())).is_some() {
            // Another thread has cached the same image in the meantime.
            self.bytes_left.fetch_add(bytes as u64 + OVERHEAD, Ordering::Relaxed);
        }
    }

    fn take(&self, bytes: u64) -> bool {
        let take = |left: u64| left.checked_sub(bytes);
        self.bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn part(&self, index: u32) -> &Part {
        &self.parts[index as usize % PARTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(cache: &Cache) -> (usize, u64) {
        let parts = cache.parts.iter().map(|part| part.read().unwrap());
        parts.fold((0, 0), |(count, bytes), part| {
            let size = part.values().map(|payload| match &**payload {
                Payload::Encoded(bytes) => bytes.capacity() as u64,
                Payload::Pixels(image) => image.data().len() as u64,
            });
            (count + part.len(), bytes + size.sum::<u64>())
        })
    }

    #[test]
    fn the_budget_holds_whatever_many_threads_offer() {
        let image = Image::new(vec![0; 300], 10, 10, 3).unwrap();
        for (kind, each) in [(CacheKind::Encoded, 1000), (CacheKind::Decoded, 300)] {
            let cache = Cache::new(kind, 20_000e-9);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for index in 0..100 {
                            let mut bytes = Vec::with_capacity(4000);
                            bytes.resize(1000, 7);
                            cache.offer(index, Payload::Encoded(bytes), &image);
                        }
                    });
                }
            });
            let (count, bytes) = kept(&cache);
            assert_eq!(bytes, count as u64 * each, "{kind:?}: no more than the images themselves");
            let left = cache.bytes_left.load(Ordering::Relaxed);
            assert_eq!(left + count as u64 * (each + OVERHEAD), 20_000, "{kind:?}");
            assert!(left < each + OVERHEAD, "{kind:?}: room is used");
        }
    }

    #[test]
    fn nothing_is_kept_unasked() {
        let cache = Cache::new(CacheKind::None, 1.0);
        cache.offer(0, Payload::Encoded(vec![1]), &Image::new(vec![0; 3], 1, 1, 3).unwrap());
        assert!(cache.get(0).is_none());
        assert_eq!(kept(&cache).0, 0);
    }
}
