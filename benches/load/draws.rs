//! Random draws: uniform, Zipf and log-normal. Owns the mathematics; knows nothing of keys.

/// A fast hash of a number that is as good as random (the finalizer of `SplitMix64`).
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A number in `0..1` made of 53 bits of `random`.
#[expect(clippy::cast_precision_loss, reason = "53 bits are kept, as many as the type holds")]
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

/// The log-normal quantity with `median` and shape `sigma` that `random` stands for
/// (Box and Muller, 1958).
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
    pub fn draw(&self, random: u64) -> u32 {
        let column = below(random, u32::try_from(self.columns.len()).unwrap_or(u32::MAX));
        let (limit, alias) = self.columns[column as usize];
        if unit(mix(random)) < limit { column } else { alias }
    }
}

/// The number in `0..limit` that `random` stands for.
#[expect(clippy::cast_possible_truncation, reason = "the product is below limit * 2^64")]
pub fn below(random: u64, limit: u32) -> u32 {
    ((u128::from(random) * u128::from(limit)) >> 64) as u32
}
