//! The Prometheus text format (version 0.0.4), in portions: a thousand backends make megabytes, and
//! neither is a worker to stand still for them nor are they to be held in memory.

use std::fmt::Write as _;

use super::histogram::{BOUNDS_US, Totals};
use super::{Block, Count, Global, Kind, Metric, SlotCount, SlotState, SlotTime};

/// What the text is (exposition formats, text-based format).
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What every name begins with.
const PREFIX: &str = "zzz_lb_";

/// A backend's address with its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// Its slot.
    pub slot: usize,
    /// Whose the slot is.
    pub generation: u64,
    /// The labels as they are written.
    labels: String,
}

impl Labelled {
    /// The address of a backend of a name, in a slot.
    pub fn new(slot: usize, generation: u64, backend: &str, address: &str) -> Labelled {
        let labels = format!("backend=\"{}\",address=\"{}\"", Escaped(backend), Escaped(address));
        Labelled { slot, generation, labels }
    }
}

/// A label's value as it is written.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

/// Where the numbers come from.
pub struct Sources<'a> {
    /// The workers' blocks.
    pub workers: &'a [Block],
    /// The master's block.
    pub globals: Block,
    /// What is known of the backend in a slot without being counted.
    pub state: &'a dyn Fn(SlotState, usize) -> u64,
}

/// How far a text has come.
#[derive(Debug)]
pub struct Exposition {
    slots: Vec<Labelled>,
    part: Part,
    /// The first line of the part's table that is not written yet, or is not for all slots.
    line: usize,
    slot: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Build,
    Own,
    Globals,
    States,
    Counts,
    Times,
    Done,
}

impl Exposition {
    /// A text about these backends.
    pub fn new(slots: Vec<Labelled>) -> Exposition {
        Exposition { slots, part: Part::Build, line: 0, slot: 0 }
    }

    /// Adds whole lines to `out` until it has `enough` bytes or there are no more; whether there
    /// are more.
    pub fn write(&mut self, sources: &Sources<'_>, out: &mut String, enough: usize) -> bool {
        while out.len() < enough && self.part != Part::Done {
            match self.part {
                Part::Build => {
                    let version = env!("CARGO_PKG_VERSION");
                    let _ = writeln!(out, "# HELP {PREFIX}build_info What this is.\n# TYPE {PREFIX}build_info gauge");
                    let _ = writeln!(out, "{PREFIX}build_info{{version=\"{version}\"}} 1");
                    self.part = Part::Own;
                }
                Part::Own => self.line_of(out, Count::METRICS, Part::Globals, |at| {
                    sources.workers.iter().map(|block| block.cells[at].load(super::Relaxed)).sum()
                }),
                Part::Globals => self
                    .line_of(out, Global::METRICS, Part::States, |at| sources.globals.cells[at].load(super::Relaxed)),
                Part::States => self.slots_of(out, enough, SlotState::METRICS, Part::Counts, |at, one| {
                    let state = [SlotState::Healthy, SlotState::InFlight, SlotState::Weight][at];
                    (sources.state)(state, one.slot)
                }),
                Part::Counts => self.slots_of(out, enough, SlotCount::METRICS, Part::Times, |at, one| {
                    sources.workers.iter().map(|block| block.slot_cell(one.slot, one.generation, at)).sum()
                }),
                Part::Times => self.times(out, enough, sources),
                Part::Done => {}
            }
        }
        self.part != Part::Done
    }

    /// One line of a table that has one number for each.
    fn line_of(&mut self, out: &mut String, table: &[Metric], then: Part, number: impl Fn(usize) -> u64) {
        let Some(metric) = table.get(self.line) else {
            (self.part, self.line) = (then, 0);
            return;
        };
        if self.line == 0 || table[self.line - 1].family != metric.family {
            head(out, metric, kind(metric.kind));
        }
        let _ = write!(out, "{PREFIX}{}", metric.family);
        if !metric.label.is_empty() {
            let _ = write!(out, "{{{}}}", metric.label);
        }
        value(out, metric.kind, number(self.line));
        self.line += 1;
    }

    /// A family of a table that has a number for each slot: all its lines for one slot after another.
    fn slots_of(
        &mut self,
        out: &mut String,
        enough: usize,
        table: &[Metric],
        then: Part,
        number: impl Fn(usize, &Labelled) -> u64,
    ) {
        let Some(metric) = table.get(self.line) else {
            (self.part, self.line) = (then, 0);
            return;
        };
        let lines = table[self.line..].iter().take_while(|one| one.family == metric.family).count();
        if self.slot == 0 {
            head(out, metric, kind(metric.kind));
        }
        while let Some(one) = self.slots.get(self.slot) {
            for (at, metric) in table.iter().enumerate().skip(self.line).take(lines) {
                let _ = write!(out, "{PREFIX}{}{{{}", metric.family, one.labels);
                if !metric.label.is_empty() {
                    let _ = write!(out, ",{}", metric.label);
                }
                out.push('}');
                value(out, metric.kind, number(at, one));
            }
            self.slot += 1;
            if out.len() >= enough && self.slot < self.slots.len() {
                return;
            }
        }
        self.line += lines;
        self.slot = 0;
    }

    fn times(&mut self, out: &mut String, enough: usize, sources: &Sources<'_>) {
        let Some(metric) = SlotTime::METRICS.get(self.line) else {
            self.part = Part::Done;
            return;
        };
        let time = [SlotTime::Request, SlotTime::Response][self.line];
        if self.slot == 0 {
            head(out, metric, "histogram");
        }
        while let Some(one) = self.slots.get(self.slot) {
            let mut totals = Totals::default();
            for block in sources.workers {
                if let Some(histogram) = block.slot_histogram(one.slot, one.generation, time) {
                    histogram.add_to(&mut totals);
                }
            }
            histogram(out, metric.family, &one.labels, &totals);
            self.slot += 1;
            if out.len() >= enough && self.slot < self.slots.len() {
                return;
            }
        }
        self.line += 1;
        self.slot = 0;
    }
}

fn histogram(out: &mut String, family: &str, labels: &str, totals: &Totals) {
    let mut count = 0;
    for (at, more) in totals.counts.iter().enumerate() {
        count += more;
        let _ = write!(out, "{PREFIX}{family}_bucket{{{labels},le=\"");
        match BOUNDS_US.get(at) {
            Some(bound) => seconds(out, *bound),
            None => out.push_str("+Inf"),
        }
        let _ = writeln!(out, "\"}} {count}");
    }
    let _ = write!(out, "{PREFIX}{family}_sum{{{labels}}} ");
    seconds(out, totals.sum_us);
    let _ = writeln!(out, "\n{PREFIX}{family}_count{{{labels}}} {count}");
}

fn head(out: &mut String, metric: &Metric, kind: &str) {
    let family = metric.family;
    let _ = writeln!(out, "# HELP {PREFIX}{family} {}\n# TYPE {PREFIX}{family} {kind}", metric.help);
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter | Kind::Seconds => "counter",
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
mod tests {
    use super::super::private;
    use super::*;
    use std::collections::BTreeSet;

    fn text(enough: usize) -> String {
        let workers = [private(4), private(4)];
        for (n, block) in workers.iter().enumerate() {
            block.add(Count::Clients, 3 + n as u64);
            block.set(Count::CpuTime, 1_500_000);
            block.adopt(1, 7);
            block.adopt(2, 8);
            block.add_response(1, 200 + n as u16 * 300);
            block.add_response(2, 200);
            block.observe(SlotTime::Request, 1, 700);
        }
        let slots = vec![Labelled::new(1, 7, "a\"b\\c\nd", "10.0.0.1:80"), Labelled::new(2, 9, "unix:/s", "/s")];
        let state = |_: SlotState, slot: usize| slot as u64;
        let sources = Sources { workers: &workers, globals: private(0), state: &state };
        let mut exposition = Exposition::new(slots);
        let mut whole = String::new();
        loop {
            let mut portion = String::new();
            let more = exposition.write(&sources, &mut portion, enough);
            whole += &portion;
            if !more {
                return whole;
            }
        }
    }

    #[test]
    fn portions_make_the_same_text_as_one_go() {
        let whole = text(usize::MAX);
        assert!([1, 100, 5000].into_iter().all(|enough| text(enough) == whole));
    }

    #[test]
    fn workers_are_added_up_and_other_generations_left_out() {
        let text = text(usize::MAX);
        let has = |line: &str| assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        has("zzz_lb_client_connections_total 7");
        has("zzz_lb_cpu_seconds_total 3");
        has(r#"zzz_lb_requests_total{backend="a\"b\\c\nd",address="10.0.0.1:80",code="2xx"} 1"#);
        has(r#"zzz_lb_requests_total{backend="a\"b\\c\nd",address="10.0.0.1:80",code="5xx"} 1"#);
        has(r#"zzz_lb_requests_total{backend="unix:/s",address="/s",code="2xx"} 0"#);
        has(r#"zzz_lb_request_duration_seconds_bucket{backend="a\"b\\c\nd",address="10.0.0.1:80",le="0.0005"} 0"#);
        has(r#"zzz_lb_request_duration_seconds_bucket{backend="a\"b\\c\nd",address="10.0.0.1:80",le="0.001"} 2"#);
        has(r#"zzz_lb_request_duration_seconds_count{backend="a\"b\\c\nd",address="10.0.0.1:80"} 2"#);
        has(r#"zzz_lb_request_duration_seconds_sum{backend="a\"b\\c\nd",address="10.0.0.1:80"} 0.0014"#);
    }

    #[test]
    fn families_stand_together_and_no_series_comes_twice() {
        let text = text(usize::MAX);
        let (mut families, mut series) = (BTreeSet::new(), BTreeSet::new());
        let mut family = "";
        for line in text.lines() {
            if let Some(named) = line.strip_prefix("# HELP ") {
                family = named.split(' ').next().unwrap();
                assert!(families.insert(family), "{family} comes twice");
            } else if let Some(named) = line.strip_prefix("# TYPE ") {
                assert_eq!(named.split(' ').next(), Some(family));
            } else {
                let (name, number) = line.rsplit_once(' ').unwrap();
                assert!(name.starts_with(family) && number.parse::<f64>().is_ok(), "{line}");
                assert!(series.insert(name), "{name} comes twice");
            }
        }
    }
}
