//! A page's report on its own connection: how updates reached it and how late. It holds counts only, nothing about sessions.
//! The feed measures, a beacon sends the report, and the server bounds it by what it saw of the page and adds it to its
//! metrics.

use serde::{Deserialize, Serialize};

/// The upper bounds of the buckets of delays, in milliseconds.
pub const DELAY_BOUNDS_MS: [u32; 14] = [5, 10, 25, 50, 75, 100, 200, 250, 500, 1000, 1500, 3000, 5000, 10_000];

/// The number of delays in each bucket: one for each of [`DELAY_BOUNDS_MS`], and one for longer delays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Delays(pub [u32; DELAY_BOUNDS_MS.len() + 1]);

impl Delays {
    /// Counts a delay in milliseconds. A negative delay, which an estimated clock can cause, counts as zero.
    pub fn note(&mut self, ms: f64) {
        let bucket = DELAY_BOUNDS_MS.iter().position(|bound| ms <= f64::from(*bound)).unwrap_or(DELAY_BOUNDS_MS.len());
        self.0[bucket] = self.0[bucket].saturating_add(1);
    }

    /// The number of delays in all buckets.
    #[must_use]
    pub fn count(&self) -> u64 {
        sum(&self.0)
    }

    /// The counts with their upper bounds in milliseconds; the last bucket has twice the bound before it.
    pub fn buckets(&self) -> impl Iterator<Item = (u32, u32)> {
        let last = DELAY_BOUNDS_MS[DELAY_BOUNDS_MS.len() - 1] * 2;
        DELAY_BOUNDS_MS.into_iter().chain([last]).zip(self.0)
    }
}

/// How long updates arrived by which transport, in milliseconds, while the page was visible and had something to watch. The
/// page that holds the stream for other tabs counts for these too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ModeTimes {
    pub live: u32,
    pub polling: u32,
    /// A stream was being opened.
    pub connecting: u32,
    /// A stream had failed, and neither another one nor polling had taken its place.
    pub reconnecting: u32,
    pub offline: u32,
}

impl ModeTimes {
    /// The times with their names, as in labels of metrics.
    #[must_use]
    pub fn by_mode(&self) -> [(&'static str, u32); 5] {
        [
            ("live", self.live),
            ("polling", self.polling),
            ("connecting", self.connecting),
            ("reconnecting", self.reconnecting),
            ("offline", self.offline),
        ]
    }
}

/// Streams that failed so that somebody could notice, by the symptom that the page saw. See `feed::measure` for the rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct StreamFailures {
    /// The browser reported an error, or an end that the server hadn't announced.
    pub error: u32,
    /// Nothing came in time after opening: buffered or blocked on the way.
    pub buffered: u32,
    /// Nothing came for too long on a stream that had delivered.
    pub silent: u32,
}

impl StreamFailures {
    /// The counts with their names, as in labels of metrics.
    #[must_use]
    pub fn by_kind(&self) -> [(&'static str, u32); 3] {
        [("error", self.error), ("buffered", self.buffered), ("silent", self.silent)]
    }
}

/// Streams that the server ended or refused on purpose, by the reason that its `bye` gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Byes {
    pub shutdown: u32,
    pub lifetime: u32,
    pub idle: u32,
    pub logout: u32,
    /// Refused: there were too many streams.
    pub limit: u32,
    /// Refused: the browser is assigned to polling.
    pub polling: u32,
    /// A reason that the page doesn't know.
    pub other: u32,
}

impl Byes {
    /// The counts with their names, as in labels of metrics.
    #[must_use]
    pub fn by_reason(&self) -> [(&'static str, u32); 7] {
        [
            ("shutdown", self.shutdown),
            ("lifetime", self.lifetime),
            ("idle", self.idle),
            ("logout", self.logout),
            ("limit", self.limit),
            ("polling", self.polling),
            ("other", self.other),
        ]
    }
}

/// Requests of a page by what they were for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Requests {
    /// Streams opened.
    pub stream: u32,
    /// Statuses asked for.
    pub poll: u32,
    /// Segments asked for.
    pub segments: u32,
}

impl Requests {
    /// The counts with their names, as in labels of metrics.
    #[must_use]
    pub fn by_kind(&self) -> [(&'static str, u32); 3] {
        [("stream", self.stream), ("poll", self.poll), ("segments", self.segments)]
    }
}

/// What a page counted on its connection since its last report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ConnectionReport {
    /// The token of the page, from the `meta` element `hark-page` of its document.
    pub page: String,
    /// Whether this is the first report of a page that has held a connection: one visit. A page that is restored from the
    /// back/forward cache goes on with its visit, and one that only followed another tab is none.
    pub first: bool,
    /// Whether the visit has polled for 2 s because a stream failed or was refused, or because it was known from earlier pages of
    /// its tab that streams don't get through: once for each visit.
    pub fell_back: bool,
    pub mode_ms: ModeTimes,
    /// Streams opened.
    pub connects: u32,
    pub failures: StreamFailures,
    /// Streams that failed and were replaced before anybody could notice.
    pub mended: u32,
    pub byes: Byes,
    /// From opening a stream to its first event.
    pub first_event: Delays,
    /// From the creation of a status to its arrival, by an estimate of the server's clock: on streams, by polling.
    pub delivery_live: Delays,
    pub delivery_polling: Delays,
    pub requests: Requests,
    /// Bytes of the bodies of the answers as they were sent, which a page can't know of a stream that is compressed. So it isn't
    /// part of the message: the server counts what it sends to pages of each arm, and adds here what it has sent to those of
    /// this one since it took their last report.
    #[serde(skip)]
    pub bytes: u64,
}

impl ConnectionReport {
    /// The longest time that a report covers: pages report every minute while they are visible, with a margin.
    pub const LONGEST_MS: u64 = 180_000;
    /// How far the time in a report may exceed the time that has passed since the last one, because a report may take longer
    /// on its way than the next.
    const SLACK_MS: u64 = 15_000;
    /// A report with counts this many times above what one page can count in the time is refused; smaller excesses are cut.
    const ABSURD: u64 = 10;

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { page: self.page.clone(), ..Self::default() }
    }

    /// Cuts the report down to what one page can have counted in so many milliseconds, so that no report weighs more than the
    /// time that it covers.
    ///
    /// # Errors
    /// Names a value that is impossible, and its limit.
    pub fn fit(&mut self, elapsed_ms: u64) -> Result<(), String> {
        let elapsed_ms = elapsed_ms.min(Self::LONGEST_MS);
        let secs = elapsed_ms.div_ceil(1000);
        let ModeTimes { live, polling, connecting, reconnecting, offline } = &mut self.mode_ms;
        let mut times = [live, polling, connecting, reconnecting, offline];
        let total = times.iter().map(|ms| u64::from(**ms)).sum::<u64>();
        if total > elapsed_ms + Self::SLACK_MS {
            return Err(format!(
                "mode_ms adds up to {total}, but only {elapsed_ms} ms have passed since the last report."
            ));
        }
        shrink(&mut times, elapsed_ms);
        let StreamFailures { error, buffered, silent } = &mut self.failures;
        let Byes { shutdown, lifetime, idle, logout, limit, polling, other } = &mut self.byes;
        let Requests { stream, poll, segments } = &mut self.requests;
        // Streams are opened half a second apart at the closest, and far less often over a minute. Pages poll every 3 s, and
        // once more when they are shown. A session has a status a second, and several may run.
        let (streams, polls, updates) = (3 + secs / 2, 5 + secs, 10 + 3 * secs);
        let mut counts: [(&str, &mut [&mut u32], u64); 9] = [
            ("connects", &mut [&mut self.connects], streams),
            ("failures", &mut [error, buffered, silent, &mut self.mended], streams),
            ("byes", &mut [shutdown, lifetime, idle, logout, limit, polling, other], streams),
            ("requests for streams", &mut [stream], streams),
            ("polls", &mut [poll], polls),
            ("requests for segments", &mut [segments], polls),
            ("first_event", &mut self.first_event.0.each_mut(), streams),
            ("delivery_live", &mut self.delivery_live.0.each_mut(), updates),
            ("delivery_polling", &mut self.delivery_polling.0.each_mut(), updates),
        ];
        for (what, parts, most) in &mut counts {
            let total = parts.iter().map(|n| u64::from(**n)).sum::<u64>();
            if total > Self::ABSURD * *most {
                return Err(format!("{what}: {total} are more than one page can have counted in {secs} s."));
            }
            shrink(parts, *most);
        }
        Ok(())
    }
}

fn sum(parts: &[u32]) -> u64 {
    parts.iter().copied().map(u64::from).sum()
}

/// Makes the parts smaller in proportion, so that their sum isn't above `most`.
fn shrink(parts: &mut [&mut u32], most: u64) {
    let total = parts.iter().map(|n| u64::from(**n)).sum::<u64>();
    if total > most {
        for part in parts {
            **part = u32::try_from(u64::from(**part) * most / total).unwrap_or(u32::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_counts_in_the_bucket_whose_bound_it_does_not_exceed() {
        let mut delays = Delays::default();
        for ms in [-3.0, 5.0, 5.1, 100.0, 150.0, 60_000.0] {
            delays.note(ms);
        }
        let filled: Vec<_> = delays.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(5, 2), (10, 1), (100, 1), (200, 1), (20_000, 1)]);
        assert_eq!(delays.count(), 6);
    }

    fn minute() -> ConnectionReport {
        let mut report = ConnectionReport { connects: 2, ..Default::default() };
        report.mode_ms = ModeTimes { live: 45_000, polling: 6_000, connecting: 6_000, reconnecting: 3_000, offline: 0 };
        report.requests = Requests { stream: 2, poll: 3, segments: 4 };
        report.failures.error = 1;
        report.delivery_live.0[3] = 55;
        report
    }

    #[test]
    fn what_one_page_can_have_counted_stays_as_it_is() {
        let report = minute();
        let mut fitted = report.clone();
        assert_eq!(fitted.fit(60_000), Ok(()));
        assert_eq!(fitted, report);
        let with_token = ConnectionReport { page: "a".to_owned(), ..Default::default() };
        assert!(with_token.is_empty() && !report.is_empty());
    }

    #[test]
    fn a_report_weighs_no_more_than_the_time_that_has_passed() {
        let mut report = minute();
        assert_eq!(report.fit(50_000), Ok(()));
        assert_eq!(report.mode_ms.by_mode().map(|(_, ms)| ms), [37_500, 5_000, 5_000, 2_500, 0]);
        assert!(minute().fit(30_000).unwrap_err().contains("60000"));
        // However long the page was silent.
        let mut days = minute();
        days.mode_ms.live = 86_400_000;
        assert!(days.fit(u64::MAX).is_err());
        let mut most = minute();
        most.mode_ms.live = 175_000;
        assert_eq!(most.fit(u64::MAX), Ok(()));
        assert!(sum(&most.mode_ms.by_mode().map(|(_, ms)| ms)) <= ConnectionReport::LONGEST_MS);
    }

    #[test]
    fn counts_are_cut_to_what_is_possible_and_refused_if_absurd() {
        let mut many = minute();
        many.delivery_live.0 = [100; 15];
        assert_eq!(many.fit(60_000), Ok(()));
        assert_eq!(many.delivery_live.0, [12; 15]);
        many.requests.poll = 500;
        assert_eq!(many.fit(60_000), Ok(()));
        assert_eq!(many.requests, Requests { stream: 2, poll: 65, segments: 4 });
        let absurd: [fn(&mut ConnectionReport); 5] = [
            |report| report.connects = 1_000_000,
            |report| report.failures.silent = u32::MAX,
            |report| report.byes.other = 1_000_000,
            |report| report.requests.segments = 1_000_000,
            |report| report.delivery_polling.0 = [u32::MAX; 15],
        ];
        for forge in absurd {
            let mut report = minute();
            forge(&mut report);
            assert!(report.fit(60_000).is_err(), "{report:?}");
        }
    }

    #[test]
    fn reports_are_read_without_fields_that_are_unknown_or_left_out() {
        let text = r#"{"page":"a","mode_ms":{"live":5},"byes":{"limit":1},"bytes":7,"of_a_later_version":true}"#;
        let report: ConnectionReport = serde_json::from_str(text).unwrap();
        assert_eq!((report.mode_ms.live, report.byes.limit, report.bytes), (5, 1, 0));
    }
}
