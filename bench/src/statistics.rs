//! Medians, tails and ratios.

use serde_json::{Value, json};

/// What is said about a series of samples. All values are in the unit of the samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Half of the samples are not greater.
    pub median: f64,
    /// Nine of ten are not greater.
    pub p90: f64,
    /// 99 of 100 are not greater; the greatest one when there are fewer.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
    /// How many there are.
    pub count: usize,
}

// === impl Summary ===

impl Summary {
    /// The summary of `samples`; `None` when there are none.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            median: median_of_sorted(&sorted)?,
            p90: nearest_rank(&sorted, 90)?,
            p99: nearest_rank(&sorted, 99)?,
            max: *sorted.last()?,
            count: sorted.len(),
        })
    }

    /// As JSON, with the unit in the names.
    pub fn to_json(self, unit: &str) -> Value {
        json!({
            format!("median_{unit}"): self.median,
            format!("p90_{unit}"): self.p90,
            format!("p99_{unit}"): self.p99,
            format!("max_{unit}"): self.max,
            "count": self.count,
        })
    }
}

/// The median of `ours[i] / theirs[i]`: what happened in the same round is compared. `None` without a common round.
///
/// # Example
///
/// ```
/// use whereabouts_bench::statistics::median_ratio;
///
/// // The machine was ten times slower in the last round, for both.
/// assert_eq!(median_ratio(&[2.0, 2.0, 20.0], &[1.0, 1.0, 10.0]), Some(2.0));
/// assert_eq!(median_ratio(&[], &[]), None);
/// ```
pub fn median_ratio(ours: &[f64], theirs: &[f64]) -> Option<f64> {
    let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    ratios.sort_by(f64::total_cmp);
    median_of_sorted(&ratios)
}

fn median_of_sorted(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// The smallest sample that at least `percent` of all do not exceed.
fn nearest_rank(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_of_one_to_a_hundred_is_known() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let expected = Summary { median: 50.5, p90: 90.0, p99: 99.0, max: 100.0, count: 100 };
        assert_eq!(Summary::of(&samples), Some(expected));
    }

    #[test]
    fn few_samples_are_their_own_tail() {
        let expected = Summary { median: 2.0, p90: 3.0, p99: 3.0, max: 3.0, count: 3 };
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]), Some(expected));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn rounds_that_only_one_side_ran_are_left_out() {
        assert_eq!(median_ratio(&[3.0, 8.0], &[1.0, 2.0, 100.0]), Some(3.5));
    }
}
