//! The statistics behind the figures of the dashboard: histograms with their percentiles, shares and means with their 95%
//! intervals, and whether two means differ. Pure. Used by `model::figures`, and by the server, which keeps the sums.

use super::report::{DELAY_BOUNDS_MS, Delays};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Of a normal distribution, 95% lie within this many standard deviations of the mean.
const Z95: f64 = 1.959_964;

/// Delays counted by length: one count for each bound, which includes delays of exactly that length, and one for delays above
/// the last bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Histogram {
    /// The upper bounds of the buckets in milliseconds, ascending.
    pub bounds_ms: Vec<u32>,
    /// One more than there are bounds.
    pub counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bounds_ms: DELAY_BOUNDS_MS.to_vec(), counts: vec![0; DELAY_BOUNDS_MS.len() + 1] }
    }
}

/// A bucket of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Above this many milliseconds.
    pub above_ms: u32,
    /// Up to this many; none for the last bucket.
    pub to_ms: Option<u32>,
    pub count: u64,
}

impl Histogram {
    /// The number of delays.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Whether there are no delays.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// All buckets, from the shortest delays to the longest.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> {
        let above = std::iter::once(0).chain(self.bounds_ms.iter().copied());
        let to = self.bounds_ms.iter().copied().map(Some).chain([None]);
        above.zip(to).zip(&self.counts).map(|((above_ms, to_ms), count)| Bucket { above_ms, to_ms, count: *count })
    }

    /// Adds the delays that a page reported.
    pub fn add(&mut self, delays: &Delays) {
        self.merge(&Self {
            bounds_ms: DELAY_BOUNDS_MS.to_vec(),
            counts: delays.0.iter().copied().map(u64::from).collect(),
        });
    }

    /// Adds the delays of another histogram. If its bounds differ, as those of another version may, the result has the bounds
    /// of both, and each count stays at its own upper bound.
    pub fn merge(&mut self, other: &Self) {
        if self.bounds_ms != other.bounds_ms {
            let mut merged: BTreeMap<u32, u64> = BTreeMap::new();
            for histogram in [&*self, other] {
                for (bound, count) in histogram.bounds_ms.iter().zip(&histogram.counts) {
                    *merged.entry(*bound).or_default() += count;
                }
            }
            let above = self.above() + other.above();
            self.bounds_ms = merged.keys().copied().collect();
            self.counts = merged.into_values().chain([above]).collect();
            return;
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// The delays above the last bound.
    fn above(&self) -> u64 {
        self.counts.get(self.bounds_ms.len()).copied().unwrap_or_default()
    }

    /// The length in milliseconds that a share (0 to 1) of the delays doesn't exceed; none without delays. Within a bucket the
    /// delays are taken to be spread evenly. Above the last bound nothing is known, so a percentile there is that bound.
    #[must_use]
    pub fn percentile(&self, share: f64) -> Option<f64> {
        let rank = share.clamp(0.0, 1.0) * self.count() as f64;
        let mut below = 0;
        for bucket in self.buckets().filter(|bucket| bucket.count > 0) {
            let within = (rank - below as f64) / bucket.count as f64;
            below += bucket.count;
            if below as f64 >= rank {
                let above = f64::from(bucket.above_ms);
                return Some(bucket.to_ms.map_or(above, |to| above + (f64::from(to) - above) * within.max(0.0)));
            }
        }
        None
    }

    /// How many delays don't exceed `bound_ms`, which must be one of the bounds.
    #[must_use]
    pub fn within(&self, bound_ms: u32) -> u64 {
        self.bounds_ms.iter().zip(&self.counts).filter(|(bound, _)| **bound <= bound_ms).map(|(_, count)| count).sum()
    }

    /// The mean in milliseconds with its 95% interval, as if each delay had the middle of its bucket; those above the last
    /// bound count as one and a half times that. None with fewer than two delays.
    #[must_use]
    pub fn mean(&self) -> Option<Estimate> {
        let mut sums = Sums::default();
        for bucket in self.buckets().filter(|bucket| bucket.count > 0) {
            let above = f64::from(bucket.above_ms);
            let middle = bucket.to_ms.map_or(above * 1.5, |to| f64::midpoint(above, f64::from(to)));
            sums.add_many(middle, 1.0, bucket.count);
        }
        sums.ratio()
    }
}

/// A share with its 95% interval (Wilson's, which stays within 0 and 1 and is right for small numbers too).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Share {
    /// From 0 to 1.
    pub value: f64,
    pub low: f64,
    pub high: f64,
    /// Of how many this is a share.
    pub of: u64,
}

impl Share {
    /// The share of `part` in `of`; none of nothing.
    #[must_use]
    pub fn new(part: u64, of: u64) -> Option<Self> {
        if of == 0 {
            return None;
        }
        let n = of as f64;
        let value = part.min(of) as f64 / n;
        let z2 = Z95 * Z95;
        let centre = (value + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = Z95 / (1.0 + z2 / n) * (value * (1.0 - value) / n + z2 / (4.0 * n * n)).sqrt();
        // The interval contains the share, whatever the rounding.
        Some(Self { value, low: (centre - half).clamp(0.0, value), high: (centre + half).clamp(value, 1.0), of })
    }
}

/// A measured value with its 95% interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    fn of(value: f64, standard_error: f64) -> Self {
        let half = Z95 * standard_error;
        Self { value, low: value - half, high: value + half }
    }

    fn standard_error(&self) -> f64 {
        (self.high - self.low) / (2.0 * Z95)
    }

    /// By how much this is more than `other`, which was measured independently of it.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self::of(self.value - other.value, self.standard_error().hypot(other.standard_error()))
    }

    /// The same in another unit.
    #[must_use]
    pub fn times(&self, factor: f64) -> Self {
        Self { value: self.value * factor, low: self.low * factor, high: self.high * factor }
    }

    /// Whether the whole interval is above 0, or below it; none if 0 lies within, so that nothing can be told.
    #[must_use]
    pub fn sign(&self) -> Option<bool> {
        match (self.low > 0.0, self.high < 0.0) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }
}

/// What is needed of pairs of an amount and the time (or weight) in which it was counted to tell the amount per time, and how
/// sure that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    pub n: u64,
    pub amount: f64,
    pub time: f64,
    pub amount_squared: f64,
    pub amount_time: f64,
    pub time_squared: f64,
}

impl Sums {
    /// Adds a pair.
    pub fn add(&mut self, amount: f64, time: f64) {
        self.add_many(amount, time, 1);
    }

    fn add_many(&mut self, amount: f64, time: f64, times: u64) {
        let weight = times as f64;
        self.n += times;
        self.amount += weight * amount;
        self.time += weight * time;
        self.amount_squared += weight * amount * amount;
        self.amount_time += weight * amount * time;
        self.time_squared += weight * time * time;
    }

    /// Adds the pairs of another.
    pub fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.amount += other.amount;
        self.time += other.time;
        self.amount_squared += other.amount_squared;
        self.amount_time += other.amount_time;
        self.time_squared += other.time_squared;
    }

    /// The amount per time, with the interval of a ratio of two means (by linearisation: the pairs' distances from the ratio
    /// are taken as independent). None with fewer than two pairs, or in no time.
    #[must_use]
    pub fn ratio(&self) -> Option<Estimate> {
        if self.n < 2 || self.time <= 0.0 {
            return None;
        }
        let n = self.n as f64;
        let ratio = self.amount / self.time;
        let squares = self.amount_squared - 2.0 * ratio * self.amount_time + ratio * ratio * self.time_squared;
        let standard_error = (squares.max(0.0) * n / (n - 1.0)).sqrt() / self.time;
        Some(Estimate::of(ratio, standard_error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(delays: &[f64]) -> Histogram {
        let mut counted = Delays::default();
        delays.iter().for_each(|ms| counted.note(*ms));
        let mut histogram = Histogram::default();
        histogram.add(&counted);
        histogram
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-3, "{found} isn't {expected}");
    }

    #[test]
    fn percentiles_are_interpolated_within_a_bucket() {
        assert_eq!(histogram(&[]).percentile(0.5), None);
        // Ten delays above 10 and up to 25 ms, ten above 50 and up to 75.
        let mixed = histogram(&[vec![20.0; 10], vec![60.0; 10]].concat());
        assert_eq!(mixed.percentile(0.0), Some(10.0));
        assert_eq!(mixed.percentile(0.25), Some(17.5));
        assert_eq!(mixed.percentile(0.5), Some(25.0));
        assert_eq!(mixed.percentile(0.75), Some(62.5));
        assert_eq!(mixed.percentile(1.0), Some(75.0));
        // Nothing is known above the last bound.
        assert_eq!(histogram(&[60_000.0; 3]).percentile(0.5), Some(10_000.0));
        assert_eq!((mixed.within(25), mixed.within(50), mixed.within(100)), (10, 10, 20));
    }

    #[test]
    fn histograms_with_other_bounds_can_be_merged() {
        let mut merged = histogram(&[1.0, 60_000.0]);
        merged.merge(&histogram(&[1.0, 7.0]));
        assert_eq!((merged.within(5), merged.within(10), merged.count()), (2, 3, 4));
        assert_eq!(merged.bounds_ms, DELAY_BOUNDS_MS);
        merged.merge(&Histogram { bounds_ms: vec![5, 7, 300], counts: vec![10, 20, 30, 40] });
        assert_eq!((merged.within(5), merged.within(7), merged.within(10), merged.within(300)), (12, 32, 33, 63));
        assert_eq!((merged.count(), merged.buckets().last().unwrap().count), (104, 41));
        let mut bounds = merged.bounds_ms.clone();
        bounds.sort_unstable();
        assert_eq!((&bounds, merged.counts.len()), (&merged.bounds_ms, bounds.len() + 1));
    }

    #[test]
    fn intervals_of_shares_are_wilsons() {
        assert_eq!(Share::new(0, 0), None);
        // Values from Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I.
        for (part, of, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let share = Share::new(part, of).unwrap();
            assert!((share.low - low).abs() < 1e-4 && (share.high - high).abs() < 1e-4, "{part} of {of}: {share:?}");
            assert_eq!(share.of, of);
        }
        let all = Share::new(20, 20).unwrap();
        assert_eq!((all.value, all.high), (1.0, 1.0));
        close(all.low, 0.8389);
    }

    #[test]
    fn the_interval_of_a_mean_is_that_of_its_standard_error() {
        let mut sums = Sums::default();
        assert_eq!(sums.ratio(), None);
        // 2, 4, 4, 4, 5, 5, 7, 9: mean 5, standard deviation of the sample 2.13809, standard error 0.75593.
        [2.0, 4.0, 4.0, 4.0].iter().for_each(|amount| sums.add(*amount, 1.0));
        let mut others = Sums::default();
        [5.0, 5.0, 7.0, 9.0].iter().for_each(|amount| others.add(*amount, 1.0));
        sums.merge(&others);
        let mean = sums.ratio().unwrap();
        close(mean.value, 5.0);
        close(mean.high - mean.value, 1.959_964 * 0.755_93);
        close(mean.value - mean.low, 1.959_964 * 0.755_93);
    }

    #[test]
    fn an_amount_per_time_is_sure_if_it_is_the_same_in_any_time() {
        let mut steady = Sums::default();
        [1.0, 5.0, 60.0].iter().for_each(|time| steady.add(time * 3.0, *time));
        let ratio = steady.ratio().unwrap();
        close(ratio.value, 3.0);
        close(ratio.high - ratio.low, 0.0);
        assert_eq!(Sums { n: 3, ..Sums::default() }.ratio(), None);
    }

    #[test]
    fn a_difference_is_told_only_if_its_interval_excludes_none() {
        let estimate = |value, half: f64| Estimate { value, low: value - half, high: value + half };
        let difference = estimate(10.0, 3.0).minus(&estimate(4.0, 4.0));
        close(difference.value, 6.0);
        close(difference.high - difference.value, 5.0);
        assert_eq!(difference.sign(), Some(true));
        assert_eq!(estimate(4.0, 4.0).minus(&estimate(10.0, 3.0)).sign(), Some(false));
        assert_eq!(estimate(10.0, 3.0).minus(&estimate(6.0, 4.0)).sign(), None);
    }

    #[test]
    fn the_mean_of_a_histogram_is_that_of_its_buckets_middles() {
        // The middle of 10 to 25 is 17.5, that of 50 to 75 is 62.5.
        let mean = histogram(&[vec![20.0; 10], vec![60.0; 10]].concat()).mean().unwrap();
        close(mean.value, 40.0);
        // The standard deviation of the sample is 22.5 times the root of 20/19.
        close(mean.high - mean.value, 1.959_964 * 22.5 * (20.0_f64 / 19.0).sqrt() / 20.0_f64.sqrt());
        assert_eq!(histogram(&[20.0]).mean(), None);
    }
}
