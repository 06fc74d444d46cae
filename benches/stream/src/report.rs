//! Formats the figures as Markdown.

use crate::{Measured, peer::Kind};

/// A table for each scenario, with the median of each figure, and Hark's ratios to the others.
pub fn tables(all: &[Measured]) -> String {
    let mut text = String::new();
    let mut names: Vec<&str> = Vec::new();
    for measured in all {
        if !names.contains(&measured.scenario.name.as_str()) {
            names.push(&measured.scenario.name);
        }
    }
    for name in names {
        let of: Vec<&Measured> = all.iter().filter(|m| m.scenario.name == name).collect();
        let scenario = &of[0].scenario;
        text += &format!(
            "\n### {name}: {} streams on {} sessions, {} changes/s for {} s\n\n",
            scenario.streams,
            scenario.sessions,
            scenario.rate,
            scenario.duration.as_secs()
        );
        text += "| | p50 ms | p99 ms | p99.9 ms | kB/stream connected | kB/stream after | CPU s/million | \
                 bytes/event | connect p99 ms | delivered | skipped | lost | doubled |\n";
        text += "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
        let row = |kind: Kind| -> Option<[f64; 12]> {
            let of: Vec<&&Measured> = of.iter().filter(|m| m.peer == kind).collect();
            let median = |figure: &dyn Fn(&Measured) -> f64| {
                let mut values: Vec<f64> = of.iter().map(|m| figure(m)).collect();
                values.sort_by(f64::total_cmp);
                values[values.len() / 2]
            };
            let ms = |ns: u64| ns as f64 / 1e6;
            (!of.is_empty()).then(|| {
                [
                    median(&|m| ms(m.outcome.latency[0])),
                    median(&|m| ms(m.outcome.latency[1])),
                    median(&|m| ms(m.outcome.latency[2])),
                    median(&|m| m.connected / 1000.0),
                    median(&|m| m.after / 1000.0),
                    median(&|m| m.cpu),
                    median(&|m| m.outcome.bytes_per_event),
                    median(&|m| ms(m.outcome.connect[1])),
                    median(&|m| m.outcome.delivered as f64),
                    median(&|m| m.outcome.skipped as f64),
                    median(&|m| (m.outcome.lost + m.outcome.broken) as f64),
                    median(&|m| m.outcome.doubled as f64),
                ]
            })
        };
        let hark = row(Kind::Hark);
        for kind in [Kind::Hark, Kind::HarkBatch, Kind::Nchan, Kind::Axum] {
            let Some(figures) = row(kind) else { continue };
            let [p50, p99, p999, connected, after, cpu, bytes, connect, delivered, skipped, lost, doubled] = figures;
            text += &format!(
                "| {} | {p50:.2} | {p99:.2} | {p999:.2} | {connected:.1} | {after:.1} | {cpu:.1} | {bytes:.0} | {connect:.1} | \
                 {delivered} | {skipped} | {lost} | {doubled} |\n",
                kind.name()
            );
        }
        for kind in [Kind::Nchan, Kind::Axum] {
            let (Some(hark), Some(other)) = (hark, row(kind)) else { continue };
            let ratio = |n: usize| format!("{:.2}", hark[n] / other[n]);
            text += &format!(
                "| hark / {} | {} | {} | {} | {} | {} | {} | {} | {} | | | | |\n",
                kind.name(),
                ratio(0),
                ratio(1),
                ratio(2),
                ratio(3),
                ratio(4),
                ratio(5),
                ratio(6),
                ratio(7)
            );
        }
    }
    text
}
