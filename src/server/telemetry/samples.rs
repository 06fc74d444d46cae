//! Reads metrics in Prometheus' text format, which this node wrote: the built-in alerts and the dashboard's advice come from
//! them. Pure.

/// A series of the metrics' text: its name, its labels, its value.
pub type SampleLine<'a> = (&'a str, Vec<(&'a str, String)>, f64);

/// The sum of a metric over its labels.
#[must_use]
pub fn sum(text: &str, name: &str) -> f64 {
    text.lines().filter_map(read).filter(|(metric, ..)| *metric == name).map(|(.., value)| value).sum()
}

/// Reads a line; none if it has no value.
#[must_use]
pub fn read(line: &str) -> Option<SampleLine<'_>> {
    let (series, value) = line.rsplit_once(' ')?;
    let value: f64 = value.parse().ok()?;
    let Some((name, mut rest)) = series.split_once('{') else { return Some((series, Vec::new(), value)) };
    let mut labels = Vec::new();
    while let Some((label, text)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = text.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((label.trim_start_matches(','), value));
        rest = &text[end + 1..];
    }
    Some((name, labels, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text = "# TYPE a counter\na{x=\"1\"} 2\na{x=\"2 3\"} 3.5\na_more 100\nb 7\n";
        assert_eq!(["a", "b", "c"].map(|name| sum(text, name)), [5.5, 7.0, 0.0]);
    }
}
