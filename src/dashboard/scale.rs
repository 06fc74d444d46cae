//! Scales and axes of charts: which ticks they have, and where a value lies on them. Pure. Used by `charts`.

use crate::model::{
    Timestamp,
    text::{self, decimal},
};

/// The most labels below a chart: more would touch each other on a phone.
const TIME_LABELS: usize = 5;

/// What a chart's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A duration, in milliseconds.
    Millis,
    Percent,
    Number,
    PerSecond,
    Bytes,
}

impl Unit {
    /// A value as people read it.
    pub fn text(self, value: f64) -> String {
        match self {
            Self::Millis => millis(value),
            Self::Percent => format!("{}%", short(value)),
            Self::Number => short(value),
            Self::PerSecond => format!("{}/s", short(value)),
            Self::Bytes => text::bytes(value.max(0.0) as u64),
        }
    }
}

/// A duration in milliseconds: `4.2 ms`, `85 ms`, `1.5 s`, `2 min`.
pub fn millis(value: f64) -> String {
    match value {
        v if v < 9.95 => format!("{} ms", trim(decimal(v, 1))),
        v if v < 999.5 => format!("{} ms", decimal(v, 0)),
        v if v < 59_950.0 => format!("{} s", trim(decimal(v / 1000.0, 1))),
        v => text::duration(v / 1000.0),
    }
}

/// A number with two decimals at most, and with `k` or `M` where it is large.
pub fn short(value: f64) -> String {
    match value {
        v if v < 0.995 => trim(decimal(v, 2)),
        v if v < 99.95 => trim(decimal(v, 1)),
        v if v < 9999.5 => decimal(v, 0),
        v if v < 999_950.0 => format!("{}k", trim(decimal(v / 1000.0, 1))),
        v => format!("{}M", trim(decimal(v / 1_000_000.0, 1))),
    }
}

/// Removes zeros after the decimal point.
pub fn trim(number: String) -> String {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.').to_owned() } else { number }
}

/// A vertical scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// From 0 to `max`, with a tick at each `step`.
    Linear { max: f64, step: f64 },
    /// From `min` to `max`, both powers of ten, with a tick at each power: for values that lie orders of magnitude apart.
    Log { min: f64, max: f64 },
}

impl Scale {
    /// A linear scale that holds `largest`, with three to six ticks at round numbers.
    pub fn linear(largest: f64) -> Self {
        let largest = if largest.is_finite() && largest > 0.0 { largest } else { 1.0 };
        let rough = largest / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= rough * 0.999);
        let step = step.unwrap_or(10.0 * power);
        Self::Linear { max: (largest / step - 1e-9).ceil() * step, step }
    }

    /// A scale of powers of ten that holds everything from `smallest` to `largest`. What is 0 or less lies at its bottom.
    pub fn log(smallest: f64, largest: f64) -> Self {
        let valid = |value: f64, other: f64| if value.is_finite() && value > 0.0 { value } else { other };
        let (smallest, largest) = (valid(smallest, 1.0), valid(largest, 10.0));
        let min = 10f64.powf((smallest.log10() + 1e-9).floor());
        let max = 10f64.powf((largest.log10() - 1e-9).ceil()).max(min * 10.0);
        Self::Log { min, max }
    }

    /// The values with a line and a label, from the bottom.
    pub fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear { max, step } => (0..=(max / step).round() as u32).map(|n| f64::from(n) * step).collect(),
            Self::Log { min, max } => (0..=(max / min).log10().round() as i32).map(|n| min * 10f64.powi(n)).collect(),
        }
    }

    /// Where a value lies: 0 at the bottom, 1 at the top. What is outside lies at the end.
    pub fn place(self, value: f64) -> f64 {
        let place = match self {
            Self::Linear { max, .. } => value / max,
            Self::Log { min, max } => (value.max(min) / min).log10() / (max / min).log10(),
        };
        place.clamp(0.0, 1.0)
    }
}

/// The points along a chart: what each is called, and which have a label below the chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// The heading of the table's first column.
    pub name: &'static str,
    pub names: Vec<String>,
    /// The indexes of the points with a label, and the labels.
    pub labels: Vec<(usize, String)>,
}

impl Axis {
    /// Points in time, each the beginning of `step_secs` seconds.
    pub fn times(times: &[Timestamp], step_secs: u64) -> Self {
        const DAY: u64 = 86_400;
        let by_day = times.len() as u64 * step_secs > 2 * DAY;
        let full = |at: &Timestamp| {
            if step_secs >= DAY { text::day(*at) } else { format!("{}, {}", text::day(*at), text::time_of_day(*at)) }
        };
        let label = |at: Timestamp| if by_day { text::day(at) } else { text::hour_minute(at) };
        let every = times.len().div_ceil(TIME_LABELS).max(1);
        let labels = times.iter().enumerate().step_by(every).map(|(n, at)| (n, label(*at))).collect();
        Self { name: "From", names: times.iter().map(full).collect(), labels }
    }

    /// Buckets, each with a name; every second one has a label if there are many.
    pub fn buckets(name: &'static str, names: Vec<String>) -> Self {
        let every = names.len().div_ceil(7).max(1);
        let labels = names.iter().cloned().enumerate().step_by(every).collect();
        Self { name, names, labels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_scales_have_round_ticks_and_hold_the_largest_value() {
        let of = |largest| match Scale::linear(largest) {
            Scale::Linear { max, step } => (max, step),
            Scale::Log { .. } => unreachable!(),
        };
        assert_eq!([of(4.0), of(17.0), of(100.0)], [(4.0, 1.0), (20.0, 5.0), (100.0, 50.0)]);
        assert_eq!([of(0.0), of(f64::NAN), of(-3.0)], [(1.0, 0.5), (1.0, 0.5), (1.0, 0.5)]);
        for n in 1..2000 {
            let largest = f64::from(n) * 0.37;
            let (max, step) = of(largest);
            let ticks = Scale::linear(largest).ticks();
            assert!(max >= largest && max - step < largest, "{largest}: {max}, {step}");
            assert!((3..=6).contains(&ticks.len()), "{largest}: {ticks:?}");
        }
    }

    #[test]
    fn log_scales_end_at_powers_of_ten() {
        assert_eq!(Scale::log(3.0, 1500.0).ticks(), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(Scale::log(10.0, 100.0).ticks(), [10.0, 100.0]);
        assert_eq!(Scale::log(0.0, f64::NAN).ticks(), [1.0, 10.0]);
        let scale = Scale::log(1.0, 10_000.0);
        let places = [0.0, 1.0, 100.0, 10_000.0, 1e9].map(|value| (scale.place(value) * 100.0).round());
        assert_eq!(places, [0.0, 0.0, 50.0, 100.0, 100.0]);
    }

    #[test]
    fn values_lie_between_the_ends_of_a_linear_scale() {
        let scale = Scale::linear(20.0);
        assert_eq!([-1.0, 0.0, 5.0, 20.0, 99.0].map(|value| scale.place(value)), [0.0, 0.0, 0.25, 1.0, 1.0]);
    }

    #[test]
    fn numbers_are_short() {
        let of = |unit: Unit, values: &[f64]| values.iter().map(|value| unit.text(*value)).collect::<Vec<_>>();
        assert_eq!(
            of(Unit::Millis, &[0.0, 4.25, 9.96, 85.4, 999.6, 1500.0, 120_000.0]),
            ["0 ms", "4.2 ms", "10 ms", "85 ms", "1 s", "1.5 s", "2 min"]
        );
        assert_eq!(of(Unit::Percent, &[0.0, 0.05, 99.5, 100.0]), ["0%", "0.05%", "99.5%", "100%"]);
        assert_eq!(of(Unit::Number, &[12_345.0, 2_500_000.0, 1234.0]), ["12.3k", "2.5M", "1234"]);
        assert_eq!(of(Unit::Bytes, &[1_400_000.0, -1.0]), ["1.4 MB", "0 B"]);
    }

    #[test]
    fn a_time_axis_has_few_labels() {
        let start: Timestamp = "2026-11-27T00:00:00Z".parse().unwrap();
        let at = |step: u64, count: u64| {
            let times: Vec<_> = (0..count).map(|n| start.plus_seconds((n * step) as f64)).collect();
            Axis::times(&times, step)
        };
        let day = at(3600, 24);
        let labels: Vec<_> = day.labels.iter().map(|(n, label)| (*n, label.as_str())).collect();
        assert_eq!(labels, [(0, "00:00"), (5, "05:00"), (10, "10:00"), (15, "15:00"), (20, "20:00")]);
        assert_eq!(day.names[13], "27 Nov, 13:00 UTC");
        let quarter = at(86_400, 90);
        assert_eq!((quarter.names[1].as_str(), quarter.labels.len()), ("28 Nov", 5));
        assert_eq!(at(3600, 168).labels[1].1, "28 Nov");
        assert!(at(60, 0).labels.is_empty());
    }
}
