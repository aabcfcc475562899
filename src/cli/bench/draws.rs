//! Random draws: uniform, Zipf and log-normal. Owns the mathematics; knows nothing of keys.

/// A fast hash of a number that is as good as random (the finalizer of `SplitMix64`).
#[must_use]
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A number in `0..1` made of 53 bits of `random`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "53 bits are kept, as many as the type holds")]
pub fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

/// The log-normal quantity with `median` and shape `sigma` that `random` stands for
/// (Box and Muller, 1958).
#[must_use]
pub fn log_normal(random: u64, median: f64, sigma: f64) -> f64 {
    let radius = (-2.0 * (1.0 - unit(random)).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * unit(mix(random))).cos();
    median * (sigma * normal).exp()
}

/// Draws from `0..len` with probability proportional to `1 / (rank + 1)^exponent`, in constant
/// time (the alias method: Vose, 1991).
pub struct Zipf {
    columns: Vec<(f64, u32)>,
}

impl Zipf {
    /// Prepares draws: 16 bytes for each of `len`.
    #[must_use]
    pub fn new(len: u32, exponent: f64) -> Zipf {
        let weights: Vec<f64> = (1..=len).map(|rank| f64::from(rank).powf(-exponent)).collect();
        let mean = weights.iter().sum::<f64>() / f64::from(len);
        let mut columns: Vec<(f64, u32)> =
            (0..len).zip(&weights).map(|(rank, weight)| (weight / mean, rank)).collect();
        let (mut light, mut heavy): (Vec<u32>, Vec<u32>) =
            (0..len).partition(|rank| columns[*rank as usize].0 < 1.0);
        while let (Some(small), Some(large)) = (light.pop(), heavy.pop()) {
            columns[small as usize].1 = large;
            let rest = columns[large as usize].0 + columns[small as usize].0 - 1.0;
            columns[large as usize].0 = rest;
            if rest < 1.0 { light.push(large) } else { heavy.push(large) }
        }
        Zipf { columns }
    }

    /// The rank that `random` stands for.
    #[must_use]
    pub fn draw(&self, random: u64) -> u32 {
        let column = below(random, u32::try_from(self.columns.len()).unwrap_or(u32::MAX));
        let (limit, alias) = self.columns[column as usize];
        if unit(mix(random)) < limit { column } else { alias }
    }
}

/// The number in `0..limit` that `random` stands for.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the product is below limit * 2^64")]
pub fn below(random: u64, limit: u32) -> u32 {
    ((u128::from(random) * u128::from(limit)) >> 64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u32 = 400_000;

    fn counts(zipf: &Zipf, len: usize) -> Vec<u32> {
        let mut counts = vec![0; len];
        for number in 0..u64::from(DRAWS) {
            counts[zipf.draw(mix(number)) as usize] += 1;
        }
        counts
    }

    #[test]
    fn the_head_of_a_zipf_popularity_has_its_share() {
        const LEN: usize = 10_000;
        for exponent in [0.5, 0.9, 1.2] {
            let counts = counts(&Zipf::new(10_000, exponent), LEN);
            let weight =
                |ranks: usize| (1..=ranks).map(|rank| (rank as f64).powf(-exponent)).sum::<f64>();
            for head in [1, 10, 100, 1000] {
                let expected = weight(head) / weight(LEN);
                let share = f64::from(counts[..head].iter().sum::<u32>()) / f64::from(DRAWS);
                // Six standard deviations of a binomial count.
                let bound = 6.0 * (expected * (1.0 - expected) / f64::from(DRAWS)).sqrt();
                assert!((share - expected).abs() < bound, "{exponent} {head}: {share} {expected}");
            }
        }
    }

    #[test]
    fn half_of_a_log_normal_quantity_is_below_the_median() {
        let draws = (0..u64::from(DRAWS)).map(|number| log_normal(mix(number), 16384.0, 1.6));
        let below = draws.filter(|draw| *draw < 16384.0).count();
        let share = below as f64 / f64::from(DRAWS);
        assert!((share - 0.5).abs() < 0.005, "{share}");
    }
}
