//! The random permutations of PyTorch on a CPU, without its generator: that belongs to the whole
//! process, so another thread that draws or seeds would change them.

/// The Mersenne Twister MT19937, as `torch.manual_seed` seeds it.
///
/// # Source
/// Matsumoto and Nishimura, Mersenne Twister (1998), with their initialization of 2002.
#[derive(Debug)]
pub(crate) struct TorchRandom {
    state: Vec<u32>, // LENGTH
    used: usize,
}

/// Number of words of the state, and the distance of the words that are combined.
const LENGTH: usize = 624;
const DISTANCE: usize = 397;

impl TorchRandom {
    /// Creates the generator that PyTorch has after `manual_seed(seed)`.
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = vec![seed as u32]; // as in PyTorch, the lower 32 bits
        for i in 1..LENGTH as u32 {
            let last = state[i as usize - 1];
            state.push(1_812_433_253_u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i));
        }
        Self { state, used: LENGTH }
    }

    fn next(&mut self) -> u32 {
        if self.used == LENGTH {
            self.renew();
        }
        let mut y = self.state[self.used];
        self.used += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn renew(&mut self) {
        let state = &mut self.state;
        for i in 0..LENGTH {
            let y = state[i] & 0x8000_0000 | state[(i + 1) % LENGTH] & 0x7fff_ffff;
            let twisted = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            state[i] = state[(i + DISTANCE) % LENGTH] ^ (y >> 1) ^ twisted;
        }
        self.used = 0;
    }

    /// Draws a permutation of `0..count`, as `torch.randperm` does for up to 200 million numbers.
    pub(crate) fn permutation(&mut self, count: usize) -> Vec<i64> {
        let mut order: Vec<i64> = (0..count as i64).collect();
        for i in 0..count.saturating_sub(1) {
            order.swap(i, i + self.next() as usize % (count - i));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From torch 2.11.0: `manual_seed(seed)`, then `randperm(n)`.
    #[test]
    fn permutations_are_those_of_pytorch() {
        let ten = TorchRandom::new(0).permutation(10);
        assert_eq!(ten, [4, 1, 7, 5, 3, 9, 0, 8, 6, 2]);
        let thousand = TorchRandom::new((1 << 33) + 7).permutation(1000);
        assert_eq!(thousand[997..], [570, 477, 409]);
        assert!(TorchRandom::new(1).permutation(0).is_empty());
    }
}
