//! Damaged copies of files, the same ones in every run.

const DEFAULT_COUNT: u64 = 2_000;

/// Bytes that mean something to one of the formats.
const TELLING: [u8; 24] = [
    0, 1, 4, 0x7f, 0x80, 0xff, b'(', b')', b'.', b'R', b'Q', b'b', b'c', b'e', b'h', b'j', b'q',
    b's', b't', b'u', b'{', b'[', b'P', 0x85,
];

/// Random numbers by splitmix64.
#[derive(Debug)]
pub struct Draws(u64);

impl Draws {
    /// Starts at this state.
    pub fn of(state: u64) -> Self {
        Self(state)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, or 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Makes one to four changes: bits, bytes, numbers, parts that are repeated, moved, or cut out.
pub fn mutate(bytes: &mut Vec<u8>, draws: &mut Draws) {
    for _ in 0..=draws.below(4) {
        let at = draws.below(bytes.len());
        match draws.below(8) {
            _ if bytes.is_empty() => return,
            0 => bytes[at] ^= 1 << draws.below(8),
            1 => bytes[at] = TELLING[draws.below(TELLING.len())],
            2 => bytes[at] = draws.next() as u8,
            3 => {
                let number = [0, 1, u64::MAX, 1 << 31, 1 << 62][draws.below(5)].to_le_bytes();
                let width = [2, 4, 8][draws.below(3)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
            4 => bytes.truncate(at),
            5 => {
                let len = draws.below(64).min(bytes.len() - at);
                let part = bytes[at..at + len].to_vec();
                let to = draws.below(bytes.len());
                bytes.splice(to..to, part);
            }
            6 => {
                let noise: Vec<u8> = (0..=draws.below(8)).map(|_| draws.next() as u8).collect();
                bytes.splice(at..at, noise);
            }
            _ => {
                let len = draws.below(32).min(bytes.len() - at);
                bytes.drain(at..at + len);
            }
        }
    }
}

/// Number of damaged copies that a test makes: that of `SIMDINO_MUTATIONS`, or 2,000.
pub fn count() -> u64 {
    let count = std::env::var("SIMDINO_MUTATIONS").ok().and_then(|count| count.parse().ok());
    count.unwrap_or(DEFAULT_COUNT)
}
