//! Chooses an evenly spread subset of a set.

use augment::rng::{Purpose, Rng};

/// The [`Purpose::Choice`] number for subsets.
const SUBSET: u32 = 709;
/// Version of the choice, which identifies stored results of a subset.
pub const SUBSET_VERSION: u32 = 2;

/// Returns `limit` of `len` indices in ascending order, one from each of `limit` equal parts, so
/// that a set sorted by class keeps all classes. The index within a part is random, so that a set
/// with alternating classes keeps them, too.
pub(crate) fn evenly_spaced(len: usize, limit: Option<usize>) -> Vec<usize> {
    let limit = limit.unwrap_or(len).min(len);
    let start = |part: usize| (part as u128 * len as u128 / limit as u128) as usize;
    let mut rng = Rng::new(0, 0, 0, Purpose::Choice(SUBSET));
    (0..limit).map(|part| start(part) + rng.index(start(part + 1) - start(part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_spreads_over_the_set() {
        assert_eq!(evenly_spaced(4, None), [0, 1, 2, 3]);
        assert_eq!(evenly_spaced(4, Some(9)), [0, 1, 2, 3]);
        assert_eq!(evenly_spaced(4, Some(0)), [0; 0]);
        let few = evenly_spaced(10, Some(4));
        for (index, part) in few.iter().zip([0..2, 2..5, 5..7, 7..10]) {
            assert!(part.contains(index), "{few:?}");
        }
        let many = evenly_spaced(1000, Some(333));
        assert!(many.windows(2).all(|w| w[0] < w[1]) && many[332] < 1000);
    }

    #[test]
    fn a_limit_keeps_classes_that_alternate() {
        let mut counts = [0; 10];
        evenly_spaced(4000, Some(2000)).iter().for_each(|index| counts[index % 10] += 1);
        assert!(counts.iter().all(|count| (150..250).contains(count)), "{counts:?}");
    }
}
