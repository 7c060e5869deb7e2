//! The Prometheus text format (version 0.0.4), in portions: a thousand backends make megabytes. A worker must
//! neither stop for that long, nor hold the text in memory.

use std::fmt::Write as _;
use std::sync::Arc;

use super::histogram::{BOUNDS_US, COARSE_US, Totals};
use super::listing::{Escaped, Series};
use super::{
    Block, Count, Detail, Global, Histogram, Kind, Listing, Metric, OwnTime, PairState, Place, SlotCount, SlotState,
    SlotTime,
};
use crate::limits::METRICS_CELLS;

/// The content type of the text (exposition formats, text-based format).
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The prefix of all names, except those that every program has.
const PREFIX: &str = "zzz_lb_";

/// A family's whole name.
struct Name(&'static str);

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let prefix = if self.0.starts_with("process_") { "" } else { PREFIX };
        write!(f, "{prefix}{}", self.0)
    }
}

/// The sources of the numbers.
pub struct Sources<'a> {
    /// The workers' blocks.
    pub workers: &'a [Block],
    /// The master's block.
    pub globals: Block,
    /// The state of the backend in a slot.
    pub state: &'a dyn Fn(SlotState, Place) -> u64,
}

/// The progress of a text.
#[derive(Debug)]
pub struct Exposition {
    listing: Arc<Listing>,
    part: Part,
    /// The first line of the part's table that is not written yet, or is not for all slots.
    line: usize,
    /// The first series that is not written yet.
    at: usize,
    /// Cells read for the portion under way.
    cells: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Build,
    Own,
    OwnTimes,
    Globals,
    Certificates,
    States,
    Counts,
    Times,
    Done,
}

impl Exposition {
    /// A text about these backends.
    pub fn new(listing: Arc<Listing>) -> Exposition {
        Exposition { listing, part: Part::Build, line: 0, at: 0, cells: 0 }
    }

    /// Appends whole lines to `out` until it has `enough` bytes, or the limit of cells is reached, or the text
    /// is complete. Returns true if there is more. The excess over `enough` is at most one backend's lines of
    /// one family.
    pub fn write(&mut self, sources: &Sources<'_>, out: &mut String, enough: usize) -> bool {
        self.cells = 0;
        let workers = sources.workers.len();
        while !self.is_full(out, enough) && self.part != Part::Done {
            match self.part {
                Part::Build => {
                    let version = env!("CARGO_PKG_VERSION");
                    let name = Name("build_info");
                    let _ = writeln!(out, "# HELP {name} The version of the program.\n# TYPE {name} gauge");
                    let _ = writeln!(out, "{name}{{version=\"{version}\"}} 1");
                    self.part = Part::Own;
                }
                Part::Own => self.line_of(out, Count::METRICS, Part::OwnTimes, workers, |at| {
                    let master = Global::same_as(&Count::METRICS[at]).map(|at| &sources.globals.cells[at]);
                    let cells = sources.workers.iter().map(|block| &block.cells[at]).chain(master);
                    Some(cells.map(|cell| cell.load(super::Relaxed)).sum())
                }),
                Part::OwnTimes => self.own_times(out, sources),
                Part::Globals => self.line_of(out, Global::METRICS, Part::Certificates, 1, |at| {
                    let own = !Global::ALL[at].is_shown_with_workers();
                    own.then(|| sources.globals.cells[at].load(super::Relaxed))
                }),
                Part::Certificates => self.certificates(out),
                Part::States => {
                    let listing = Arc::clone(&self.listing);
                    let state = SlotState::ALL.get(self.line).copied();
                    self.series_of(out, enough, SlotState::METRICS, Part::Counts, listing.of(state), 1, |_, one| {
                        state.and_then(|state| state_of(state, one, sources))
                    });
                }
                Part::Counts => {
                    let listing = Arc::clone(&self.listing);
                    let series = listing.counted();
                    self.series_of(out, enough, SlotCount::METRICS, Part::Times, series, workers, |at, one| {
                        let count = |place: &Place| {
                            let cells = sources.workers.iter();
                            cells.map(|block| block.slot_cell(place.slot, place.generation, at)).sum::<u64>()
                        };
                        let sum = one.places.iter().map(count).sum();
                        (SlotCount::METRICS[at].kind != Kind::Rare || sum > 0).then_some(sum)
                    });
                }
                Part::Times => self.times(out, enough, sources),
                Part::Done => {}
            }
        }
        self.part != Part::Done
    }

    /// True if the portion is full.
    fn is_full(&self, out: &str, enough: usize) -> bool {
        out.len() >= enough || self.cells >= METRICS_CELLS
    }

    /// Writes one line of a table whose metrics have one number each, made of this many cells.
    fn line_of(
        &mut self,
        out: &mut String,
        table: &[Metric],
        then: Part,
        cells: usize,
        number: impl Fn(usize) -> Option<u64>,
    ) {
        let Some(metric) = table.get(self.line) else {
            (self.part, self.line) = (then, 0);
            return;
        };
        let at = self.line;
        self.line += 1;
        self.cells += cells;
        // One that the workers count too was shown with theirs.
        let Some(number) = number(at) else { return };
        if at == 0 || table[at - 1].family != metric.family {
            head(out, metric, kind(metric.kind));
        }
        let _ = write!(out, "{}", Name(metric.family));
        if !metric.label.is_empty() {
            let _ = write!(out, "{{{}}}", metric.label);
        }
        value(out, metric.kind, number);
    }

    /// Writes a family of a table with a number for each of these series, each made of this many cells per
    /// place: all lines of one series after another. Series without a number are omitted.
    #[allow(clippy::too_many_arguments, reason = "what differs between the two tables")]
    fn series_of(
        &mut self,
        out: &mut String,
        enough: usize,
        table: &[Metric],
        then: Part,
        series: &[Series],
        cells: usize,
        number: impl Fn(usize, &Series) -> Option<u64>,
    ) {
        let Some(metric) = table.get(self.line) else {
            (self.part, self.line) = (then, 0);
            return;
        };
        let lines = table[self.line..].iter().take_while(|one| one.family == metric.family).count();
        if self.at == 0 {
            head(out, metric, kind(metric.kind));
        }
        while let Some(one) = series.get(self.at) {
            for (at, metric) in table.iter().enumerate().skip(self.line).take(lines) {
                let Some(number) = number(at, one) else { continue };
                let _ = write!(out, "{}{{{}", Name(metric.family), one.labels);
                if !metric.label.is_empty() {
                    let _ = write!(out, ",{}", metric.label);
                }
                out.push('}');
                value(out, metric.kind, number);
            }
            self.at += 1;
            self.cells += lines * cells * one.places.len();
            if self.is_full(out, enough) && self.at < series.len() {
                return;
            }
        }
        self.line += lines;
        self.at = 0;
    }

    /// Writes the times at which the certificates for clients expire. There are few of them.
    fn certificates(&mut self, out: &mut String) {
        self.part = Part::States;
        for (at, certificate) in self.listing.certificates().iter().enumerate() {
            let metric = &PairState::METRICS[PairState::Expiry as usize];
            if at == 0 {
                head(out, metric, kind(metric.kind));
            }
            let _ = write!(out, "{}{{certificate=\"{}\"}}", Name(metric.family), Escaped(&certificate.name));
            value(out, metric.kind, certificate.expiry_s);
        }
    }

    fn own_times(&mut self, out: &mut String, sources: &Sources<'_>) {
        let Some(metric) = OwnTime::METRICS.get(self.line) else {
            (self.part, self.line) = (Part::Globals, 0);
            return;
        };
        head(out, metric, "histogram");
        let mut totals = Totals::default();
        sources.workers.iter().for_each(|block| block.own_histogram(OwnTime::ALL[self.line]).add_to(&mut totals));
        histogram(out, &Name(metric.family), "", &totals, &BOUNDS_US);
        self.line += 1;
        self.cells += Histogram::CELLS * sources.workers.len();
    }

    fn times(&mut self, out: &mut String, enough: usize, sources: &Sources<'_>) {
        let Some(metric) = SlotTime::METRICS.get(self.line) else {
            self.part = Part::Done;
            return;
        };
        let time = SlotTime::ALL[self.line];
        if self.at == 0 {
            head(out, metric, "histogram");
        }
        let listing = Arc::clone(&self.listing);
        let bounds: &[u64] = if listing.detail == Detail::Backend { &COARSE_US } else { &BOUNDS_US };
        let series = listing.counted();
        while let Some(one) = series.get(self.at) {
            let mut totals = Totals::default();
            for place in &one.places {
                for block in sources.workers {
                    if let Some(histogram) = block.slot_histogram(place.slot, place.generation, time) {
                        histogram.add_to(&mut totals);
                    }
                }
            }
            histogram(out, &Name(metric.family), &one.labels, &totals, bounds);
            self.at += 1;
            self.cells += Histogram::CELLS * sources.workers.len() * one.places.len();
            if self.is_full(out, enough) && self.at < series.len() {
                return;
            }
        }
        self.line += 1;
        self.at = 0;
    }
}

impl Listing {
    /// The series of a state.
    fn of(&self, state: Option<SlotState>) -> &[Series] {
        match state {
            // The address that is down must be visible at every level of detail.
            Some(SlotState::Healthy) => &self.addresses,
            Some(SlotState::Addresses | SlotState::Weight | SlotState::Max) => &self.backends,
            _ => self.counted(),
        }
    }

    /// The series of counts.
    fn counted(&self) -> &[Series] {
        if self.detail == Detail::Backend { &self.backends } else { &self.addresses }
    }
}

/// The state of a series; `None` if it has none.
fn state_of(state: SlotState, one: &Series, sources: &Sources<'_>) -> Option<u64> {
    let current = one.places[..one.current].iter();
    match state {
        SlotState::Healthy => Some(current.map(|&place| (sources.state)(state, place)).sum()),
        SlotState::InFlight => Some(one.places.iter().map(|&place| (sources.state)(state, place)).sum()),
        SlotState::Addresses => one.is_name.then_some(one.current as u64),
        SlotState::Weight => one.weight,
        SlotState::Max => one.max,
        // A certificate that was not seen would seem to have expired long ago.
        SlotState::Expiry => current.map(|&place| (sources.state)(state, place)).filter(|&at_s| at_s > 0).min(),
    }
}

/// Writes a histogram with these bounds, which are some of those that it has.
fn histogram(out: &mut String, family: &Name, labels: &str, totals: &Totals, bounds: &[u64]) {
    let comma = if labels.is_empty() { "" } else { "," };
    let (mut count, mut at) = (0, 0);
    for &bound in bounds {
        while BOUNDS_US.get(at).is_some_and(|&one| one <= bound) {
            count += totals.counts[at];
            at += 1;
        }
        let _ = write!(out, "{family}_bucket{{{labels}{comma}le=\"");
        seconds(out, bound);
        let _ = writeln!(out, "\"}} {count}");
    }
    count += totals.counts[at..].iter().sum::<u64>();
    let _ = writeln!(out, "{family}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
    let braces = |labels: &str| if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let labels = braces(labels);
    let _ = write!(out, "{family}_sum{labels} ");
    seconds(out, totals.sum_us);
    let _ = writeln!(out, "\n{family}_count{labels} {count}");
}

fn head(out: &mut String, metric: &Metric, kind: &str) {
    let name = Name(metric.family);
    let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter | Kind::Seconds | Kind::Rare => "counter",
        Kind::Gauge => "gauge",
    }
}

fn value(out: &mut String, kind: Kind, number: u64) {
    out.push(' ');
    if kind == Kind::Seconds {
        seconds(out, number);
    } else {
        let _ = write!(out, "{number}");
    }
    out.push('\n');
}

/// Microseconds as seconds, with no more digits than there are.
fn seconds(out: &mut String, us: u64) {
    let _ = write!(out, "{}", us / 1_000_000);
    let (mut rest, mut digits) = (us % 1_000_000, 6);
    if rest > 0 {
        while rest.is_multiple_of(10) {
            rest /= 10;
            digits -= 1;
        }
        let _ = write!(out, ".{rest:0digits$}");
    }
}

#[cfg(test)]
mod tests;
