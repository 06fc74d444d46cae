//! Charts as SVG, drawn by the server: lines over time, columns, a strip of hours, and bars in a table. Each has a sentence
//! that says what it shows, for people who can't see it, and a table of its numbers. Series differ by dashes, marks and
//! patterns, not by colour alone. `live.js` shows the numbers of a point under the pointer, or chosen with the arrow keys.

use super::scale::{Axis, Scale, Unit};
use leptos::prelude::*;

/// The size of a chart in its own units. Texts are sized for a phone, where a chart is about as wide in pixels.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 24.0;
/// A line with more points than this has no mark at each.
const MARKED_POINTS: usize = 31;

/// One line, or one set of columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: &'static str,
    /// One value for each point of the axis; none where nothing was measured.
    pub values: Vec<Option<f64>>,
}

/// What a chart shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// Its id in the page.
    pub id: &'static str,
    pub title: &'static str,
    /// A sentence that says what can be seen.
    pub summary: String,
    pub axis: Axis,
    pub unit: Unit,
    pub scale: Scale,
    pub series: Vec<Series>,
    /// A line at a promised value, with its name.
    pub target: Option<(f64, &'static str)>,
}

impl Plot {
    /// The numbers of one point, in one line.
    fn tip(&self, point: usize) -> String {
        let name = self.axis.names.get(point).map(String::as_str).unwrap_or_default();
        let values = self.series.iter().map(|series| match series.values.get(point).copied().flatten() {
            Some(value) => format!("{} {}", series.name, self.unit.text(value)),
            None => format!("{} –", series.name),
        });
        format!("{name}: {}", values.collect::<Vec<_>>().join(", "))
    }

    /// Whether there is anything to show.
    fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.values.iter().all(Option::is_none))
    }

    fn points(&self) -> usize {
        self.axis.names.len()
    }

    /// The width of the column that belongs to one point.
    fn column(&self) -> f64 {
        (WIDTH - LEFT - RIGHT) / self.points().max(1) as f64
    }

    /// The middle of a point's column.
    fn x(&self, point: usize) -> f64 {
        LEFT + self.column() * (point as f64 + 0.5)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.scale.place(value) * (HEIGHT - TOP - BOTTOM)
    }
}

/// The path of a line, with gaps where a value is missing. A value between two gaps is a dot.
fn line_path(points: impl Iterator<Item = (f64, Option<f64>)>) -> String {
    let mut path = String::new();
    let mut in_line = false;
    for (x, y) in points {
        match y {
            Some(y) if in_line => path.push_str(&format!("L{x:.1} {y:.1}")),
            // A line of no length, which round ends make visible.
            Some(y) => path.push_str(&format!("M{x:.1} {y:.1}h0")),
            None => {}
        }
        in_line = y.is_some();
    }
    path
}

/// The mark of the series numbered `series`: a circle, a square, a triangle, a diamond.
fn mark_path(series: usize, x: f64, y: f64) -> String {
    match series % 4 {
        0 => format!("M{:.1} {y:.1}a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0-5.2 0z", x - 2.6),
        1 => format!("M{:.1} {:.1}h4.8v4.8h-4.8z", x - 2.4, y - 2.4),
        2 => format!("M{x:.1} {:.1}l3.2 5.4h-6.4z", y - 3.4),
        _ => format!("M{x:.1} {:.1}l3.4 3.4l-3.4 3.4l-3.4-3.4z", y - 3.4),
    }
}

/// Lines over time.
#[component]
pub fn LineChart(plot: Plot) -> impl IntoView {
    let marked = plot.points() <= MARKED_POINTS;
    let lines = plot.series.iter().enumerate().map(|(n, series)| {
        let points = || series.values.iter().enumerate().map(|(i, value)| (plot.x(i), value.map(|v| plot.y(v))));
        let marks = marked.then(|| points().filter_map(|(x, y)| Some(mark_path(n, x, y?))).collect::<String>());
        view! {
            <path class="line" data-series=n.to_string() d=line_path(points())></path>
            {marks.map(|marks| view! { <path class="point" data-series=n.to_string() d=marks></path> })}
        }
    });
    let lines = lines.collect_view();
    let keys = plot.series.iter().enumerate().map(|(n, series)| {
        view! {
            <li>
                <svg class="key" viewBox="0 0 28 10" aria-hidden="true" focusable="false">
                    <path class="line" data-series=n.to_string() d="M1 5h26"></path>
                    <path class="point" data-series=n.to_string() d=mark_path(n, 14.0, 5.0)></path>
                </svg>
                {series.name}
            </li>
        }
    });
    let keys = keys.collect_view();
    view! { <Figure plot keys>{lines}</Figure> }
}

/// Columns side by side, one of each series for each bucket.
#[component]
pub fn ColumnChart(plot: Plot) -> impl IntoView {
    let (count, bottom) = (plot.series.len().max(1) as f64, HEIGHT - BOTTOM);
    let width = plot.column() * 0.8 / count;
    let columns = plot.series.iter().enumerate().map(|(n, series)| {
        let bars = series.values.iter().enumerate().filter_map(|(point, value)| {
            let top = plot.y((*value)?);
            let x = plot.x(point) - plot.column() * 0.4 + width * n as f64;
            Some(format!("M{x:.1} {bottom:.1}V{top:.1}h{width:.1}V{bottom:.1}z"))
        });
        let bars: String = bars.collect();
        view! { <path class="column" data-series=n.to_string() d=bars></path> }
    });
    let columns = columns.collect_view();
    let keys = plot.series.iter().enumerate().map(|(n, series)| {
        view! {
            <li>
                <svg class="key" viewBox="0 0 28 10" aria-hidden="true" focusable="false">
                    <path class="column" data-series=n.to_string() d="M6 0h16v10h-16z"></path>
                </svg>
                {series.name}
            </li>
        }
    });
    let keys = keys.collect_view();
    view! { <Figure plot keys>{columns}</Figure> }
}

/// The frame of a chart: title, sentence, axes, legend and table.
#[component]
fn Figure(plot: Plot, keys: impl IntoView + 'static, children: Children) -> impl IntoView {
    let (left, right, bottom) = (LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM);
    let ticks = plot.scale.ticks().into_iter().map(|tick| {
        let y = format!("{:.1}", plot.y(tick));
        view! {
            <path class="grid" d=format!("M{left} {y}H{right}")></path>
            <text class="tick" x=(left - 6.0).to_string() y=y text-anchor="end" dominant-baseline="central">
                {plot.unit.text(tick)}
            </text>
        }
    });
    let ticks = ticks.collect_view();
    let labels = plot.axis.labels.iter().map(|(point, label)| {
        view! {
            <text class="tick" x=format!("{:.1}", plot.x(*point)) y=(HEIGHT - 7.0).to_string() text-anchor="middle">
                {label.clone()}
            </text>
        }
    });
    let labels = labels.collect_view();
    let target = plot.target.map(|(value, name)| {
        let y = plot.y(value);
        view! {
            <path class="target" d=format!("M{left} {y:.1}H{right}")></path>
            <text class="tick target-name" x=(right - 2.0).to_string() y=format!("{:.1}", y - 4.0) text-anchor="end">
                {name}
            </text>
        }
    });
    let hits = (0..plot.points()).map(|point| {
        let (x, width) = (plot.x(point) - plot.column() / 2.0, plot.column());
        view! {
            <rect class="hit" x=format!("{x:.1}") y=TOP.to_string() width=format!("{width:.1}")
                height=(bottom - TOP).to_string()>
                <title>{plot.tip(point)}</title>
            </rect>
        }
    });
    let hits = hits.collect_view();
    let empty = plot.is_empty().then(|| {
        view! {
            // Between two lines of the grid: the one in the middle may be that of the promise.
            <text class="tick" x=((left + right) / 2.0).to_string() y=(TOP + (bottom - TOP) / 4.0).to_string() text-anchor="middle">
                "Nothing measured yet"
            </text>
        }
    });
    let numbers = plot.clone();
    let Plot { id, title, summary, .. } = plot;
    view! {
        <figure class="card chart" id=id>
            <figcaption>
                <h3>{title}</h3>
                <p class="muted" id=format!("{id}-summary") data-live="">{summary.clone()}</p>
            </figcaption>
            <div id=format!("{id}-plot") data-live="">
                <svg class="plot" viewBox=format!("0 0 {WIDTH} {HEIGHT}") role="img" tabindex="0"
                    aria-label=format!("{title}. {summary} The arrow keys read the points.")>
                    {ticks}
                    <path class="axis" d=format!("M{left} {bottom}H{right}")></path>
                    {labels}
                    {children()}
                    {target}
                    {empty}
                    {hits}
                </svg>
                <ul class="keys">{keys}</ul>
            </div>
            <p class="tip" role="status"></p>
            <details>
                <summary>"The numbers"</summary>
                <NumberTable plot=numbers/>
            </details>
        </figure>
    }
}

/// The numbers of a chart as a table.
#[component]
fn NumberTable(plot: Plot) -> impl IntoView {
    let heads = plot.series.iter().map(|series| view! { <th scope="col">{series.name}</th> }).collect_view();
    let rows = (0..plot.points()).map(|point| {
        let cells = plot.series.iter().map(|series| {
            let value = series.values.get(point).copied().flatten();
            view! { <td>{value.map_or_else(|| "–".to_owned(), |value| plot.unit.text(value))}</td> }
        });
        let cells = cells.collect_view();
        view! { <tr><th scope="row">{plot.axis.names[point].clone()}</th>{cells}</tr> }
    });
    let rows = rows.collect_view();
    view! {
        <div class="scroll" id=format!("{}-table", plot.id) data-live="" tabindex="0" role="region"
            aria-label=format!("{}: the numbers", plot.title)>
            <table class="numbers">
                <thead><tr><th scope="col">{plot.axis.name}</th>{heads}</tr></thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
}

/// How an hour was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing was measured.
    Unknown,
    Good,
    /// Some of it failed or was slow.
    Missed,
    /// Much failed.
    Bad,
}

impl Health {
    fn word(self) -> &'static str {
        match self {
            Self::Unknown => "nothing measured",
            Self::Good => "all well",
            Self::Missed => "some failed or was slow",
            Self::Bad => "much failed",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Good => "good",
            Self::Missed => "missed",
            Self::Bad => "bad",
        }
    }

    /// The height of its cell, so that it can be told from the others without colour.
    fn height(self) -> f64 {
        match self {
            Self::Unknown => 4.0,
            Self::Good => 14.0,
            Self::Missed => 24.0,
            Self::Bad => 34.0,
        }
    }
}

/// One cell of a strip: its time, how it was, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub name: String,
    pub health: Health,
    pub reason: Option<String>,
}

/// A strip of hours or days: the worse one was, the taller and darker it is.
#[component]
pub fn HealthStrip(id: &'static str, title: &'static str, cells: Vec<Cell>, axis: Axis) -> impl IntoView {
    let width = (WIDTH - 10.0) / cells.len().max(1) as f64;
    let x = |n: usize| 5.0 + width * n as f64;
    let of = |health| cells.iter().filter(|cell| cell.health == health).count();
    let summary = format!(
        "Of {} with something to measure, {} went well, in {} some failed or was slow, and in {} much failed.",
        cells.len() - of(Health::Unknown),
        of(Health::Good),
        of(Health::Missed),
        of(Health::Bad)
    );
    let tip = |cell: &Cell| {
        let reason = cell.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        format!("{}: {}{reason}", cell.name, cell.health.word())
    };
    let bars = cells.iter().enumerate().map(|(n, cell)| {
        let height = cell.health.height();
        view! {
            <rect class="cell" data-health=cell.health.key() x=format!("{:.1}", x(n) + width * 0.08)
                y=format!("{:.1}", 38.0 - height) width=format!("{:.1}", width * 0.84) height=height.to_string()></rect>
            <rect class="hit" x=format!("{:.1}", x(n)) y="0" width=format!("{width:.1}") height="40">
                <title>{tip(cell)}</title>
            </rect>
        }
    });
    let bars = bars.collect_view();
    let labels = axis.labels.iter().map(|(n, label)| {
        view! { <text class="tick" x=format!("{:.1}", x(*n)) y="56">{label.clone()}</text> }
    });
    let labels = labels.collect_view();
    let rows = cells.iter().map(|cell| {
        view! {
            <tr>
                <th scope="row">{cell.name.clone()}</th>
                <td>{cell.health.word()}</td>
                <td>{cell.reason.clone().unwrap_or_else(|| "–".to_owned())}</td>
            </tr>
        }
    });
    let rows = rows.collect_view();
    view! {
        <figure class="card chart wide" id=id>
            <figcaption>
                <h3>{title}</h3>
                <p class="muted" id=format!("{id}-summary") data-live="">{summary.clone()}</p>
            </figcaption>
            <div id=format!("{id}-plot") data-live="">
                <svg class="plot strip" viewBox="0 0 400 60" role="img" tabindex="0"
                    aria-label=format!("{title}. {summary} The arrow keys read the hours.")>
                    {bars}
                    {labels}
                </svg>
            </div>
            <p class="tip" role="status"></p>
            <details>
                <summary>"The numbers"</summary>
                <div class="scroll" id=format!("{id}-table") data-live="" tabindex="0" role="region"
                    aria-label=format!("{title}: the numbers")>
                    <table class="numbers">
                        <thead><tr><th scope="col">"From"</th><th scope="col">"Was"</th><th scope="col">"Why"</th></tr></thead>
                        <tbody>{rows}</tbody>
                    </table>
                </div>
            </details>
        </figure>
    }
}

/// A table of counts by kind, in which a bar shows each row's sum against the largest.
#[component]
pub fn KindTable(
    id: &'static str,
    title: &'static str,
    /// What is said if there is nothing to count.
    none: &'static str,
    /// The heading of the first column.
    kind: &'static str,
    columns: Vec<String>,
    rows: Vec<(String, Vec<u64>)>,
) -> impl IntoView {
    let sum = |counts: &[u64]| counts.iter().sum::<u64>();
    let largest = rows.iter().map(|(_, counts)| sum(counts)).max().unwrap_or(0);
    let is_empty = largest == 0;
    let several = columns.len() > 1;
    let heads = columns.into_iter().map(|column| view! { <th scope="col">{column}</th> }).collect_view();
    let rows = rows.into_iter().filter(|(_, counts)| sum(counts) > 0).map(|(name, counts)| {
        let all = sum(&counts);
        let width = format!("width:{:.1}%", all as f64 * 100.0 / largest.max(1) as f64);
        let cells = counts.into_iter().map(|count| view! { <td>{count}</td> }).collect_view();
        view! {
            <tr>
                <th scope="row">{name}</th>
                {cells}
                {several.then(|| view! { <td>{all}</td> })}
                <td class="bar-cell"><span class="count-bar" style=width></span></td>
            </tr>
        }
    });
    let rows = rows.collect_view();
    view! {
        <div class="card chart" id=id>
            <h3>{title}</h3>
            <div class="scroll" id=format!("{id}-table") data-live="" tabindex="0" role="region" aria-label=title>
                {if is_empty {
                    view! { <p class="muted">{none}</p> }.into_any()
                } else {
                    view! {
                        <table class="numbers">
                            <thead><tr>
                                <th scope="col">{kind}</th>
                                {heads}
                                {several.then(|| view! { <th scope="col">"All"</th> })}
                                <td></td>
                            </tr></thead>
                            <tbody>{rows}</tbody>
                        </table>
                    }.into_any()
                }}
            </div>
        </div>
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scraper::{Html, Selector};

    fn plot(values: Vec<Option<f64>>) -> Plot {
        let names = (0..values.len()).map(|n| format!("t{n}")).collect();
        Plot {
            id: "delay",
            title: "Delay",
            summary: "It fell.".to_owned(),
            axis: Axis { name: "From", names, labels: vec![(0, "t0".to_owned())] },
            unit: Unit::Millis,
            scale: Scale::linear(100.0),
            series: vec![Series { name: "p50", values }],
            target: Some((50.0, "promised")),
        }
    }

    #[test]
    fn a_line_has_a_gap_where_nothing_was_measured() {
        let points = [Some(1.0), Some(2.0), None, Some(3.0)].into_iter().enumerate();
        let path = line_path(points.map(|(n, y)| (n as f64, y)));
        assert_eq!(path, "M0.0 1.0h0L1.0 2.0M3.0 3.0h0");
    }

    #[test]
    fn each_point_can_be_read_as_a_tip_and_in_the_table() {
        let html = view! { <LineChart plot=plot(vec![Some(40.0), None])/> }.to_html();
        let page = Html::parse_fragment(&html);
        let texts = |selector: &str| {
            let selector = Selector::parse(selector).unwrap();
            page.select(&selector).map(|e| e.text().collect::<String>()).collect::<Vec<_>>()
        };
        assert_eq!(texts("rect.hit > title"), ["t0: p50 40 ms", "t1: p50 –"]);
        assert_eq!(texts("tbody tr").len(), 2);
        assert_eq!(texts("tbody td"), ["40 ms", "–"]);
        let svg = page.select(&Selector::parse("svg.plot").unwrap()).next().unwrap();
        assert_eq!(svg.attr("role"), Some("img"));
        assert!(svg.attr("aria-label").unwrap().starts_with("Delay. It fell."));
        assert!(!html.contains("Nothing measured yet"));
        assert!(view! { <LineChart plot=plot(vec![None])/> }.to_html().contains("Nothing measured yet"));
    }

    #[test]
    fn values_outside_the_scale_stay_inside_the_chart() {
        let plot = plot(vec![Some(1e9), Some(-5.0)]);
        assert_eq!((plot.y(1e9), plot.y(-5.0)), (TOP, HEIGHT - BOTTOM));
        assert!(plot.x(0) > LEFT && plot.x(1) < WIDTH - RIGHT);
    }
}
