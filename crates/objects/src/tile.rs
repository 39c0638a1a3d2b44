//! Inner products of several vectors with several others, with the sums in registers.

use simd::pulp::Simd;

/// Number of queries of a tile. Its keys fill two registers.
pub(crate) const QUERIES: usize = 6;
/// Largest number of keys of a tile, with registers of 512 bits.
pub(crate) const MOST_KEYS: usize = 32;

/// Returns the number of keys that a tile has with the registers of `S`.
#[inline(always)]
pub(crate) fn keys<S: Simd>() -> usize {
    (2 * S::F32_LANES).min(MOST_KEYS)
}

/// Computes the products of a tile: `queries` is `[channel][query]`, and `keys` is `[channel][key]`
/// with `stride` numbers from one channel to the next. Results beyond [`keys`] are negative
/// infinity.
///
/// The order of each sum does not depend on the size of the registers. With `FUSED`, products are
/// not rounded on machines with fused multiply-add, so the last bits depend on the machine.
#[inline(always)]
pub(crate) fn products<S: Simd, const FUSED: bool>(
    simd: S,
    queries: &[f32],
    keys: &[f32],
    stride: usize,
) -> [[f32; MOST_KEYS]; QUERIES] {
    let zero = simd.splat_f32s(0.0);
    let mut sums = [[zero; 2]; QUERIES];
    for (query, keys) in queries.as_chunks::<QUERIES>().0.iter().zip(keys.chunks(stride)) {
        let [left, right, ..] = S::as_simd_f32s(keys).0 else { continue };
        for q in 0..QUERIES {
            let query = simd.splat_f32s(query[q]);
            for (sum, key) in sums[q].iter_mut().zip([*left, *right]) {
                *sum = if FUSED {
                    simd.mul_add_e_f32s(query, key, *sum)
                } else {
                    simd.add_f32s(*sum, simd.mul_f32s(query, key))
                };
            }
        }
    }
    let mut products = [[f32::NEG_INFINITY; MOST_KEYS]; QUERIES];
    for q in 0..QUERIES {
        if let [left, right, ..] = S::as_mut_simd_f32s(&mut products[q]).0 {
            [*left, *right] = sums[q];
        }
    }
    products
}

/// Arranges vectors for [`products`] in groups of `count`: `[group][channel][vector]`, padded with
/// zeros.
pub(crate) fn grouped<'a>(
    vectors: impl ExactSizeIterator<Item = &'a [f32]>,
    channels: usize,
    count: usize,
) -> Vec<f32> {
    let mut groups = vec![0.0; vectors.len().div_ceil(count) * count * channels];
    for (i, vector) in vectors.enumerate() {
        let to = groups.iter_mut().skip(i / count * count * channels + i % count).step_by(count);
        to.zip(vector).for_each(|(to, from)| *to = *from);
    }
    groups
}
