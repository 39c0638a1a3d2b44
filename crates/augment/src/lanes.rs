//! Kernels as plain loops over blocks of a fixed size, compiled for this machine and run through
//! [`simd::dispatch`].
//!
//! This requires a kernel and everything it calls to be `#[inline(always)]`: only code that is
//! inlined into the dispatched closure is compiled with its instructions.

/// Number of bytes that kernels process at a time: one AVX-512 register.
pub(crate) const LANES: usize = 64;

/// Applies `f` to all bytes, [`LANES`] at a time. The last block is padded with its last byte.
#[inline(always)]
pub(crate) fn map(bytes: &mut [u8], f: impl Fn(&mut [u8; LANES])) {
    let (blocks, rest) = bytes.as_chunks_mut::<LANES>();
    for block in blocks {
        f(block);
    }
    if !rest.is_empty() {
        let mut block = padded(rest);
        f(&mut block);
        rest.copy_from_slice(&block[..rest.len()]);
    }
}

/// Applies `f` to the bytes of three slices of the same length, block by block like [`map`].
#[inline(always)]
pub(crate) fn map_pixels(
    [red, green, blue]: [&mut [u8]; 3],
    f: impl Fn(&mut [u8; LANES], &mut [u8; LANES], &mut [u8; LANES]),
) {
    let ((reds, red), (greens, green), (blues, blue)) = (
        red.as_chunks_mut::<LANES>(),
        green.as_chunks_mut::<LANES>(),
        blue.as_chunks_mut::<LANES>(),
    );
    for ((r, g), b) in reds.iter_mut().zip(greens).zip(blues) {
        f(r, g, b);
    }
    if !red.is_empty() {
        let (mut r, mut g, mut b) = (padded(red), padded(green), padded(blue));
        f(&mut r, &mut g, &mut b);
        for (rest, block) in [(red, r), (green, g), (blue, b)] {
            let n = rest.len();
            rest.copy_from_slice(&block[..n]);
        }
    }
}

#[inline(always)]
fn padded(rest: &[u8]) -> [u8; LANES] {
    let last = rest.last().copied().unwrap_or_default();
    let mut block = [last; LANES];
    block[..rest.len()].copy_from_slice(rest);
    block
}

/// Writes a block to `out`, or only its beginning if `out` is shorter, as at the end of a row.
#[inline(always)]
pub(crate) fn put<const N: usize>(block: [u8; N], out: &mut [u8]) {
    match out.first_chunk_mut::<N>() {
        // The size is known to the compiler, so this is not a call.
        Some(out) => *out = block,
        None => put_rest(&block, out),
    }
}

/// This is a separate function, because the compiler would otherwise merge both cases into one call
/// of a copy of any length.
#[cold]
#[inline(never)]
fn put_rest(block: &[u8], out: &mut [u8]) {
    out.copy_from_slice(&block[..out.len()]);
}

/// Computes `(a * b) >> 16`, which is one instruction for a whole register of 16-bit factors.
#[inline(always)]
pub(crate) fn mul_high(a: i16, b: i16) -> i16 {
    ((i32::from(a) * i32::from(b)) >> 16) as i16
}

/// Transposes 16 x 16 bytes: in each of four rounds, the rows of one half are interleaved with
/// those of the other. The rounds are written out, because compilers would otherwise keep the rows
/// in memory between them.
#[inline(always)]
pub(crate) fn transpose(rows: [[u8; 16]; 16]) -> [[u8; 16]; 16] {
    interleave(interleave(interleave(interleave(rows))))
}

#[inline(always)]
fn interleave(rows: [[u8; 16]; 16]) -> [[u8; 16]; 16] {
    let mut next = [[0; 16]; 16];
    for i in 0..8 {
        for j in 0..8 {
            next[2 * i][2 * j] = rows[i][j];
            next[2 * i][2 * j + 1] = rows[i + 8][j];
            next[2 * i + 1][2 * j] = rows[i][j + 8];
            next[2 * i + 1][2 * j + 1] = rows[i + 8][j + 8];
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use simd::dispatch;

    use super::*;

    #[test]
    fn a_transpose_swaps_rows_and_columns() {
        let rows: [[u8; 16]; 16] =
            std::array::from_fn(|i| std::array::from_fn(|j| (16 * i + j) as u8));
        let turned = dispatch(
            #[inline(always)]
            || transpose(rows),
        );
        for i in 0..16 {
            for j in 0..16 {
                assert_eq!(turned[j][i], rows[i][j]);
            }
        }
    }

    #[test]
    fn every_byte_is_worked_on_once() {
        for n in [0, 1, 63, 64, 65, 200] {
            let mut bytes: Vec<u8> = (0..n).map(|i| i as u8).collect();
            dispatch(
                #[inline(always)]
                || {
                    map(
                        &mut bytes,
                        #[inline(always)]
                        |block| block.iter_mut().for_each(|v| *v ^= 0xFF),
                    )
                },
            );
            assert!(bytes.iter().enumerate().all(|(i, &v)| v == !(i as u8)), "{n}");
            let (mut r, mut g, mut b) = (bytes.clone(), bytes.clone(), bytes.clone());
            dispatch(
                #[inline(always)]
                || {
                    map_pixels(
                        [&mut r, &mut g, &mut b],
                        #[inline(always)]
                        |r, g, b| {
                            for i in 0..LANES {
                                (r[i], g[i], b[i]) =
                                    (b[i], r[i].wrapping_add(1), g[i].wrapping_add(2));
                            }
                        },
                    );
                },
            );
            assert!(r == bytes && g.iter().zip(&bytes).all(|(g, v)| *g == v.wrapping_add(1)));
            assert!(b.iter().zip(&bytes).all(|(b, v)| *b == v.wrapping_add(2)));
        }
    }
}
