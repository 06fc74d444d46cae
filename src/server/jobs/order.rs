//! The order of the lines of several speakers: each is heard by an engine of its own, and a transcript has the lines of all
//! in the order of their times. A line is passed on once no engine can say anything earlier. Pure; used by `job`.

use crate::server::speech::EngineSegment;
use std::collections::VecDeque;

/// Where an attempt continues with a speaker, in seconds: after that speaker's last line, which ends at `own_end`, and not
/// much before `last_start`, where the last line of all begins, because whoever was to speak before has been heard. The
/// second between covers that engines may take a word to begin a little late.
pub(super) fn resume_at(own_end: Option<f64>, last_start: f64) -> f64 {
    own_end.unwrap_or(0.0).max(last_start - 1.0).max(0.0)
}

/// Collects the lines of the engines and passes them on in order. All times are those of the recording.
#[derive(Debug)]
pub(super) struct LineOrder {
    engines: Vec<Pending>,
    /// Where the last line begins that was passed on: those after it don't begin earlier.
    last_start: f64,
}

/// What is known of one engine.
#[derive(Debug)]
struct Pending {
    lines: VecDeque<EngineSegment>,
    /// No line that begins earlier will come from this engine.
    settled: f64,
    /// How far it has come.
    processed: f64,
}

impl LineOrder {
    /// Engines that begin at these times. Earlier attempts have passed on a line that begins at `last_start`, or none.
    pub(super) fn new(starts: &[f64], last_start: f64) -> Self {
        let pending = |start: &f64| Pending { lines: VecDeque::new(), settled: *start, processed: *start };
        Self { engines: starts.iter().map(pending).collect(), last_start }
    }

    /// Takes in a line of an engine.
    pub(super) fn line(&mut self, engine: usize, mut line: EngineSegment) {
        let pending = &mut self.engines[engine];
        pending.settled = pending.settled.max(line.start);
        pending.processed = pending.processed.max(line.end);
        line.start = line.start.max(self.last_start);
        line.end = line.end.max(line.start);
        pending.lines.push_back(line);
    }

    /// Notes how far an engine has come, and before what time it will say nothing more.
    pub(super) fn progress(&mut self, engine: usize, processed: f64, settled: f64) {
        let pending = &mut self.engines[engine];
        pending.processed = pending.processed.max(processed);
        pending.settled = pending.settled.max(settled);
    }

    /// Notes that an engine has heard everything.
    pub(super) fn done(&mut self, engine: usize) {
        self.progress(engine, f64::INFINITY, f64::INFINITY);
    }

    /// How far all engines have come, in seconds; infinity once all have heard everything.
    pub(super) fn processed(&self) -> f64 {
        self.engines.iter().map(|pending| pending.processed).fold(f64::INFINITY, f64::min)
    }

    /// The next line and its engine; none while an earlier one may still come.
    pub(super) fn next(&mut self) -> Option<(usize, EngineSegment)> {
        let fronts = self.engines.iter().enumerate().filter_map(|(n, pending)| Some((n, pending.lines.front()?.start)));
        let (first, start) = fronts.min_by(|(_, a), (_, b)| a.total_cmp(b))?;
        // Of lines that begin at the same time that of the first speaker comes first, whichever engine is faster.
        let is_next = self.engines.iter().enumerate().all(|(n, pending)| {
            !pending.lines.is_empty() || pending.settled > start || (n >= first && pending.settled >= start)
        });
        let line = is_next.then(|| self.engines[first].lines.pop_front())??;
        self.last_start = self.last_start.max(line.start);
        Some((first, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(start: f64, end: f64) -> EngineSegment {
        EngineSegment { start, end, ..EngineSegment::default() }
    }

    fn all(order: &mut LineOrder) -> Vec<(usize, f64)> {
        std::iter::from_fn(|| order.next()).map(|(engine, line)| (engine, line.start)).collect()
    }

    #[test]
    fn a_single_engine_waits_for_nothing() {
        let mut order = LineOrder::new(&[5.0], 4.0);
        order.line(0, line(5.5, 7.0));
        assert_eq!(all(&mut order), [(0, 5.5)]);
        assert_eq!(order.processed(), 7.0);
        order.progress(0, 9.0, 8.0);
        assert_eq!(order.processed(), 9.0);
        order.done(0);
        assert_eq!(order.processed(), f64::INFINITY);
    }

    #[test]
    fn a_line_waits_until_nothing_earlier_can_come() {
        let mut order = LineOrder::new(&[0.0, 0.0], 0.0);
        order.line(0, line(2.0, 4.0));
        order.line(0, line(6.0, 8.0));
        assert_eq!(all(&mut order), []);
        assert_eq!(order.processed(), 0.0);
        // An estimate of how far the other is says nothing about what it may still say.
        order.progress(1, 9.0, 1.0);
        assert_eq!(all(&mut order), []);
        assert_eq!(order.processed(), 8.0);
        order.line(1, line(3.0, 5.0));
        assert_eq!(all(&mut order), [(0, 2.0), (1, 3.0)]);
        order.done(1);
        assert_eq!(all(&mut order), [(0, 6.0)]);
    }

    #[test]
    fn of_lines_that_begin_together_the_first_speakers_comes_first() {
        let mut order = LineOrder::new(&[0.0, 0.0], 0.0);
        order.line(1, line(0.0, 1.0));
        assert_eq!(all(&mut order), []);
        order.line(0, line(0.0, 2.0));
        assert_eq!(all(&mut order), [(0, 0.0)]);
        order.progress(0, 3.0, 3.0);
        assert_eq!(all(&mut order), [(1, 0.0)]);
    }

    #[test]
    fn a_speaker_is_taken_up_after_its_own_last_line_or_where_the_others_are() {
        assert_eq!(resume_at(None, 0.0), 0.0);
        assert_eq!(resume_at(Some(12.0), 10.0), 12.0);
        assert_eq!(resume_at(Some(3.0), 10.0), 9.0);
        assert_eq!(resume_at(None, 10.0), 9.0);
        // What is heard again in the second between doesn't come before what is there.
        let mut order = LineOrder::new(&[12.0, 9.0], 10.0);
        order.line(1, line(9.5, 9.8));
        order.done(0);
        let (_, first) = order.next().unwrap();
        assert_eq!((first.start, first.end), (10.0, 10.0));
    }

    proptest! {
        /// However the engines' lines arrive, and wherever an attempt ends, the lines are in order, and the next attempt
        /// continues without losing or repeating one.
        #[test]
        fn lines_are_in_order_and_none_is_lost_or_repeated(
            gaps in prop::collection::vec((any::<bool>(), 0.1f64..20.0, 0.1f64..5.0), 0..40),
            turns in prop::collection::vec(any::<bool>(), 0..80),
            crash in 0usize..40,
        ) {
            // The lines of each speaker follow each other; those of both may overlap.
            let (mut spoken, mut ends) = ([Vec::new(), Vec::new()], [0.0f64, 0.0]);
            for (second, gap, length) in gaps {
                let speaker = usize::from(second);
                let start = ends[speaker] + gap + 1.0;
                ends[speaker] = start + length;
                spoken[speaker].push((start, ends[speaker]));
            }
            let run = |from: [f64; 2], last: f64, limit: usize| {
                let mut order = LineOrder::new(&from, last);
                let mut left: Vec<VecDeque<(f64, f64)>> = (0..2)
                    .map(|n| spoken[n].iter().copied().filter(|(start, _)| *start >= from[n]).collect())
                    .collect();
                let mut heard = Vec::new();
                let finish = (0..2).flat_map(|n| std::iter::repeat_n(n == 1, 45));
                for turn in turns.iter().copied().chain(finish) {
                    let engine = usize::from(turn);
                    match left[engine].pop_front() {
                        Some((start, end)) => order.line(engine, line(start, end)),
                        None => order.done(engine),
                    }
                    while let Some((engine, line)) = order.next() {
                        if heard.len() == limit {
                            return heard;
                        }
                        heard.push((engine, line.start, line.end));
                    }
                }
                heard
            };
            let mut heard = run([0.0; 2], 0.0, crash);
            let last = heard.last().map_or(0.0, |(_, start, _)| *start);
            let from = [0, 1].map(|n| {
                let own = heard.iter().rev().find(|(engine, ..)| *engine == n).map(|(.., end)| *end);
                resume_at(own, last)
            });
            heard.extend(run(from, last, usize::MAX));
            prop_assert!(heard.is_sorted_by(|a, b| a.1 <= b.1));
            for (n, spoken) in spoken.iter().enumerate() {
                let own: Vec<_> = heard.iter().filter(|(engine, ..)| *engine == n).map(|(_, a, b)| (*a, *b)).collect();
                prop_assert_eq!(&own, spoken);
            }
        }
    }
}
