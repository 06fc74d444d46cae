//! What live updates save against polling, in a month, with the formula and its numbers.

use super::{
    overview::{Ranges, percent},
    scale::short,
};
use crate::model::{
    figures::{Figures, HEADER_BYTES, MONTH_DAYS, POLL_INTERVAL_MS, Savings, with_headers},
    text::{bytes, decimal, duration},
};
use leptos::prelude::*;

/// The page.
#[component]
pub fn SavingsPage(figures: Figures) -> impl IntoView {
    let savings = figures.savings;
    let none = figures.current.stream.visits == 0;
    let formula = formula(&figures);
    let intro = if none {
        "Nothing was measured in this time yet, so nothing can be told.".to_owned()
    } else {
        format!("If a month goes on like this time, of which {} were measured.", duration(measured_secs(&figures)))
    };
    view! {
        <div class="page-head">
            <h1>"Savings"</h1>
            <Ranges current=figures.range path="/admin/savings"/>
        </div>
        <p class="lead" id="savings-intro" data-live="">{intro}</p>
        <dl class="tiles" id="savings" data-live="">
            <Tile name="requests fewer in a month" value=number(savings.requests_per_month, short)/>
            <Tile name="bytes fewer in a month" value=number(savings.bytes_per_month, |n| bytes(n as u64))/>
            <Tile name="saved in a month" value=money(&savings)/>
        </dl>
        <h2>"How this is calculated"</h2>
        <pre class="formula" id="savings-formula" data-live="" tabindex="0">{formula}</pre>
        {savings.money_per_month.is_none().then(|| view! {
            <p class="muted">
                "For the amount of money set what you pay: " <code>"HARK_PRICE_PER_MILLION_REQUESTS"</code> " and "
                <code>"HARK_PRICE_PER_GB"</code> "."
            </p>
        })}
    }
}

#[component]
fn Tile(name: &'static str, value: String) -> impl IntoView {
    view! { <div class="tile"><dt>{name}</dt><dd>{value}</dd></div> }
}

/// A number that may be negative, if polling would have needed less.
fn number(value: Option<f64>, text: fn(f64) -> String) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value < 0.0 => format!("−{}", text(-value)),
        Some(value) => text(value),
    }
}

/// In the currency of the prices, whichever that is.
fn money(savings: &Savings) -> String {
    number(savings.money_per_month, |amount| decimal(amount, 2))
}

fn measured_secs(figures: &Figures) -> f64 {
    figures.measured_from.map_or(0.0, |from| figures.to.seconds_since(from))
}

/// The formula with the numbers of the range.
fn formula(figures: &Figures) -> String {
    let (stream, savings) = (&figures.current.stream, &figures.savings);
    let polling = &stream.by_polling;
    let made = stream.requests.all();
    let online = stream.times.online();
    let size = if polling.is_measured { "as measured" } else { "assumed, because few polls were measured" };
    let seconds = POLL_INTERVAL_MS / 1000;
    let mut lines = vec![
        format!("Polling every {seconds} seconds would have needed:"),
        "  requests = visits + seconds online / interval + requests for segments".to_owned(),
        format!(
            "           = {} + {} / {seconds} + {} = {}",
            stream.visits,
            decimal(online as f64 / 1000.0, 0),
            stream.requests.segments,
            decimal(polling.requests, 0)
        ),
        "  bytes    = (visits + seconds online / interval) * bytes of a poll + requests * bytes of headers".to_owned(),
        format!(
            "           = {} * {} ({size}) + {} * {HEADER_BYTES} = {}",
            decimal(polling.requests - stream.requests.segments as f64, 0),
            decimal(polling.bytes_per_poll, 0),
            decimal(polling.requests, 0),
            bytes(polling.bytes as u64)
        ),
        String::new(),
        "Pages really made:".to_owned(),
        format!("  requests = {made}"),
        format!("  bytes    = {} with headers", bytes(with_headers(stream.bytes, made))),
        String::new(),
    ];
    let share = |share: Option<f64>| share.map_or_else(|| "–".to_owned(), percent);
    lines.push(format!(
        "Saved: {} requests ({}) and {} ({})",
        number(Some(savings.requests), |n| decimal(n, 0)),
        share(stream.requests_saved),
        number(Some(savings.bytes), |n| bytes(n as u64)),
        share(stream.bytes_saved)
    ));
    let measured = measured_secs(figures);
    if measured > 0.0 {
        lines.push(format!("In a month: saved * {} days / {}", decimal(MONTH_DAYS, 0), duration(measured)));
    }
    let price = |price: Option<f64>, per: &str| price.map(|price| format!("{price} for {per}"));
    let prices = [price(savings.price_per_million_requests, "a million requests"), price(savings.price_per_gb, "a GB")];
    let prices: Vec<String> = prices.into_iter().flatten().collect();
    if let Some(money) = savings.money_per_month {
        lines.push(format!("Money: at {}: {} a month", prices.join(" and "), decimal(money, 2)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::figures::{ModeTotals, PollingEstimate, Prices, RequestTotals};

    #[test]
    fn the_formula_shows_the_numbers_that_it_was_calculated_with() {
        let mut figures = Figures { measured_from: Some(crate::model::Timestamp(0)), ..Figures::default() };
        figures.to = crate::model::Timestamp(86_400_000);
        let stream = &mut figures.current.stream;
        stream.visits = 10;
        stream.times = ModeTotals { live: 3_000_000, ..ModeTotals::default() };
        stream.requests = RequestTotals { stream: 20, poll: 0, segments: 7 };
        stream.by_polling = PollingEstimate::new(10, 3_000_000, 7, (0, 0));
        stream.requests_saved = stream.by_polling.requests_saved(27);
        let prices = Prices { per_million_requests: Some(0.5), per_gb: None };
        figures.savings = Savings::new(&figures.current.stream, 86_400.0, prices);
        let text = formula(&figures);
        assert!(text.contains("= 10 + 3000 / 3 + 7 = 1017"), "{text}");
        assert!(text.contains("Saved: 990 requests (97.3%)"), "{text}");
        assert!(text.contains("In a month: saved * 30 days / 24 h"), "{text}");
        assert!(text.contains("Money: at 0.5 for a million requests: 0.01 a month"), "{text}");
    }

    #[test]
    fn what_polling_would_save_is_negative() {
        assert_eq!(number(Some(-1500.0), short), "−1500");
        assert_eq!((number(None, short), number(Some(2.0), short)), ("–".to_owned(), "2".to_owned()));
    }
}
