//! Chance, as a value: one generator per seed, the same numbers on every machine.
#![forbid(unsafe_code)]

/// A small generator (xorshift64* over a mixed seed) for time-outs and simulations. Not for
/// secrets.
#[derive(Debug, Clone)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Chance {
        // One round of splitmix64, so that neighbouring seeds do not start alike.
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Chance {
            state: (z ^ (z >> 31)) | 1,
        }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product: no modulo, and a bias far below what time-outs notice.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Chance;

    #[test]
    fn one_seed_gives_one_sequence() {
        let take = |seed| {
            let mut chance = Chance::new(seed);
            (0..4).map(|_| chance.next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
    }

    #[test]
    fn numbers_stay_below_the_bound_and_reach_all_of_it() {
        let mut chance = Chance::new(1);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[chance.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
    }
}
