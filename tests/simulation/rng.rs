//! Randomness from one seed (xorshift after splitmix).

use std::cell::Cell;

/// A seeded source of random numbers.
pub struct Rng(Cell<u64>);

impl Rng {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)) | 1))
    }

    /// 64 random bits.
    pub fn next(&self) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number from 0 to below 1.
    pub fn share(&self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability.
    pub fn chance(&self, probability: f64) -> bool {
        self.share() < probability
    }

    /// A number from 0 to below `bound`.
    pub fn below(&self, bound: usize) -> usize {
        (self.share() * bound as f64) as usize
    }

    /// One of several values.
    pub fn one<T: Copy>(&self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A number between two, evenly distributed.
    pub fn between(&self, least: f64, most: f64) -> f64 {
        least + (most - least) * self.share()
    }

    /// A number exponentially distributed around a mean.
    pub fn around(&self, mean: f64) -> f64 {
        -mean * (1.0 - self.share()).ln()
    }
}

/// A hash of a number.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A hash of a text.
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
