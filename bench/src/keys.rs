//! Which key comes next, and its bytes.

#![forbid(unsafe_code)]

/// A small fast generator of pseudo-random numbers (splitmix64), seeded and repeatable.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator that always gives the same sequence for the same seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, each as likely as the other (up to 2^-64 of a bias).
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// How the keys of a key space are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// Every key as likely as the other.
    Uniform,
    /// The n-th most popular key is asked for in proportion to `1 / n^0.99`, as in YCSB;
    /// popular keys lie scattered over the key space.
    Zipfian,
    /// One after the other, from the first, and around again.
    Sequential,
}

/// Chooses key numbers below `keys`.
#[derive(Debug)]
pub struct Chooser {
    keys: u64,
    random: Random,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Uniform,
    Zipfian(Zipf, u64),
    Sequential { next: u64, stride: u64 },
}

impl Chooser {
    /// The chooser of worker `worker` of `workers`; sequential workers share the key space out.
    pub fn new(
        distribution: Distribution,
        keys: u64,
        seed: u64,
        worker: u64,
        workers: u64,
    ) -> Chooser {
        assert!(keys > 0 && worker < workers);
        let kind = match distribution {
            Distribution::Uniform => Kind::Uniform,
            Distribution::Zipfian => Kind::Zipfian(Zipf::new(keys, 0.99), scatter(keys)),
            Distribution::Sequential => Kind::Sequential {
                next: worker % keys,
                stride: workers,
            },
        };
        let mut root = Random::new(seed);
        (0..worker).for_each(|_| _ = root.next());
        Chooser {
            keys,
            random: Random::new(root.next()),
            kind,
        }
    }

    /// The number of the next key.
    pub fn next(&mut self) -> u64 {
        match &mut self.kind {
            Kind::Uniform => self.random.below(self.keys),
            Kind::Zipfian(zipf, factor) => {
                let rank = zipf.rank(self.random.unit());
                (u128::from(rank) * u128::from(*factor) % u128::from(self.keys)) as u64
            }
            Kind::Sequential { next, stride } => {
                let key = *next;
                *next = (key + *stride) % self.keys;
                key
            }
        }
    }

    /// The generator behind the choice, for other decisions of the same worker.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}

/// A factor without a common divisor with `keys`: multiplying by it modulo `keys` moves every
/// rank to a place of its own, neighbours far apart.
fn scatter(keys: u64) -> u64 {
    let mut factor = 0x9E37_79B9_7F4A_7C15_u64;
    while gcd(factor, keys) != 1 {
        factor += 2;
    }
    factor
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Gray et al., "Quickly generating billion-record synthetic databases": ranks by inversion.
#[derive(Debug)]
struct Zipf {
    n: u64,
    theta: f64,
    alpha: f64,
    zeta_n: f64,
    eta: f64,
}

impl Zipf {
    fn new(n: u64, theta: f64) -> Zipf {
        let zeta_n = zeta(n, theta);
        let zeta_2 = zeta(2.min(n), theta);
        let eta = (1.0 - (2.0 / n as f64).powf(1.0 - theta)) / (1.0 - zeta_2 / zeta_n);
        Zipf {
            n,
            theta,
            alpha: 1.0 / (1.0 - theta),
            zeta_n,
            eta,
        }
    }

    /// The rank (0 is the most popular) at `u` of `[0, 1)`.
    fn rank(&self, u: f64) -> u64 {
        let uz = u * self.zeta_n;
        if uz < 1.0 || self.n == 1 {
            return 0;
        }
        if uz < 1.0 + 0.5f64.powf(self.theta) || self.n == 2 {
            return 1;
        }
        let rank = self.n as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.n - 1)
    }
}

/// The sum of `1 / i^theta`; beyond a million terms by the integral, to start at once.
fn zeta(n: u64, theta: f64) -> f64 {
    let exact = n.min(1_000_000);
    let sum: f64 = (1..=exact).map(|i| 1.0 / (i as f64).powf(theta)).sum();
    let power = 1.0 - theta;
    sum + ((n as f64).powf(power) - (exact as f64).powf(power)) / power
}

/// Writes the key with that number over `key`: its decimal digits, zeros before them.
///
/// All keys have the same length, so that their order is the order of their numbers.
pub fn write_key(number: u64, key: &mut [u8]) {
    key.fill(b'0');
    let mut rest = number;
    for digit in key.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    debug_assert_eq!(rest, 0, "the key is too short for its number");
}

/// The shortest key that can hold every number below `keys`.
pub fn shortest_key(keys: u64) -> usize {
    keys.saturating_sub(1).max(1).ilog10() as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(distribution: Distribution, keys: u64, draws: u64) -> Vec<u64> {
        let mut chooser = Chooser::new(distribution, keys, 7, 0, 1);
        let mut counts = vec![0; keys as usize];
        for _ in 0..draws {
            counts[chooser.next() as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_keys_are_even() {
        let counts = histogram(Distribution::Uniform, 100, 100_000);
        // Expected 1000 each; six standard deviations are about 190.
        assert!(
            counts.iter().all(|&count| (810..1190).contains(&count)),
            "{counts:?}"
        );
    }

    #[test]
    fn zipfian_keys_follow_the_law_and_are_scattered() {
        let (keys, draws) = (1000, 400_000);
        let counts = histogram(Distribution::Zipfian, keys, draws);
        let factor = scatter(keys);
        let by_rank = |rank: u64| counts[(u128::from(rank) * u128::from(factor) % 1000) as usize];
        let sum: f64 = (1..=keys).map(|i| 1.0 / (i as f64).powf(0.99)).sum();
        for rank in [0, 1, 9, 99] {
            let expected = draws as f64 / ((rank + 1) as f64).powf(0.99) / sum;
            let seen = by_rank(rank) as f64;
            assert!(
                (seen / expected - 1.0).abs() < 0.25,
                "rank {rank}: {seen} of {expected}"
            );
        }
        assert!(by_rank(0) > 30 * by_rank(99));
        // Every key can be drawn: the mapping of ranks to keys is one to one.
        let mut seen: Vec<u64> = (0..keys)
            .map(|rank| (u128::from(rank) * u128::from(factor) % u128::from(keys)) as u64)
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len() as u64, keys);
    }

    #[test]
    fn small_and_large_key_spaces_stay_in_bounds() {
        for distribution in [
            Distribution::Uniform,
            Distribution::Zipfian,
            Distribution::Sequential,
        ] {
            for keys in [1, 2, 3, 1 << 40] {
                let mut chooser = Chooser::new(distribution, keys, 3, 0, 1);
                assert!(
                    (0..10_000).all(|_| chooser.next() < keys),
                    "{distribution:?} {keys}"
                );
            }
        }
    }

    #[test]
    fn sequential_workers_cover_the_key_space_once() {
        let mut seen = Vec::new();
        for worker in 0..3 {
            let mut chooser = Chooser::new(Distribution::Sequential, 9, 0, worker, 3);
            seen.extend((0..3).map(|_| chooser.next()));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..9).collect::<Vec<_>>());
    }

    #[test]
    fn workers_draw_different_keys_and_repeat_with_the_seed() {
        let draw = |worker| {
            let mut chooser = Chooser::new(Distribution::Uniform, 1 << 30, 5, worker, 4);
            (0..8).map(|_| chooser.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(0), draw(1));
    }

    #[test]
    fn keys_have_the_asked_size_and_order() {
        let mut key = [0; 8];
        write_key(1234, &mut key);
        assert_eq!(&key, b"00001234");
        assert_eq!(shortest_key(1), 1);
        assert_eq!(shortest_key(10), 1);
        assert_eq!(shortest_key(11), 2);
        assert_eq!(shortest_key(100_000), 5);
        assert_eq!(shortest_key(u64::MAX), 20);
    }
}
