//! Medians and what can be told apart.

use serde::Serialize;

/// Several measurements of the same thing.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Median absolute deviation from the median.
    pub(crate) spread: f64,
    pub(crate) rounds: usize,
}

impl Summary {
    /// All zero for no values.
    pub(crate) fn of(values: &[f64]) -> Self {
        let middle = median(values);
        let away: Vec<f64> = values.iter().map(|v| (v - middle).abs()).collect();
        Summary {
            median: middle,
            min: values.iter().copied().reduce(f64::min).unwrap_or(0.0),
            max: values.iter().copied().reduce(f64::max).unwrap_or(0.0),
            spread: median(&away),
            rounds: values.len(),
        }
    }
}

/// Zero for no values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => 0.0,
        _ if n % 2 == 1 => sorted[n / 2],
        _ => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The rounds of one comparison: a baseline before each measurement and one after the last.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    pub(crate) base: Vec<f64>,
    pub(crate) with: Vec<f64>,
}

impl Pairs {
    /// Each measurement against the mean of the baselines around it: a drift of the machine cancels out.
    fn around(&self) -> impl Iterator<Item = (f64, f64)> {
        self.with.iter().enumerate().filter_map(|(i, with)| {
            let before = *self.base.get(i)?;
            let after = *self.base.get(i + 1).unwrap_or(&before);
            Some((f64::midpoint(before, after), *with))
        })
    }

    /// What was added.
    pub(crate) fn added(&self) -> Summary {
        Summary::of(&self.around().map(|(b, w)| w - b).collect::<Vec<_>>())
    }

    /// The same in per cent of the baseline.
    pub(crate) fn percent(&self) -> Summary {
        Summary::of(
            &self
                .around()
                .map(|(b, w)| (w - b) / b * 100.0)
                .collect::<Vec<_>>(),
        )
    }
}

/// An effect smaller than twice the spread of the differences is none.
pub(crate) fn distinguishable(added: &Summary) -> bool {
    added.median.abs() > 2.0 * added.spread
}
