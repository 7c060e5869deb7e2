//! The Prometheus text format (version 0.0.4), in portions: a thousand backends make megabytes, and
//! neither is a worker to stand still for them nor are they to be held in memory.

use std::fmt::Write as _;

use super::histogram::{BOUNDS_US, Totals};
use super::{Block, Count, Global, Histogram, Kind, Metric, SlotCount, SlotState, SlotTime};
use crate::limits::METRICS_CELLS;

/// What the text is (exposition formats, text-based format).
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What every name begins with, but those that every program's has.
const PREFIX: &str = "zzz_lb_";

/// A family's whole name.
struct Name(&'static str);

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let prefix = if self.0.starts_with("process_") { "" } else { PREFIX };
        write!(f, "{prefix}{}", self.0)
    }
}

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
    pub state: &'a dyn Fn(SlotState, &Labelled) -> u64,
}

/// How far a text has come.
#[derive(Debug)]
pub struct Exposition {
    slots: Vec<Labelled>,
    part: Part,
    /// The first line of the part's table that is not written yet, or is not for all slots.
    line: usize,
    slot: usize,
    /// Cells read for the portion under way.
    cells: usize,
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
        Exposition { slots, part: Part::Build, line: 0, slot: 0, cells: 0 }
    }

    /// Adds whole lines to `out` until it has `enough` bytes, or as many cells are read for it as is
    /// bearable, or there are no more; whether there are more. What it adds beyond `enough` is one
    /// backend's lines of one family.
    pub fn write(&mut self, sources: &Sources<'_>, out: &mut String, enough: usize) -> bool {
        self.cells = 0;
        let workers = sources.workers.len();
        while !self.is_full(out, enough) && self.part != Part::Done {
            match self.part {
                Part::Build => {
                    let version = env!("CARGO_PKG_VERSION");
                    let name = Name("build_info");
                    let _ = writeln!(out, "# HELP {name} What this is.\n# TYPE {name} gauge");
                    let _ = writeln!(out, "{name}{{version=\"{version}\"}} 1");
                    self.part = Part::Own;
                }
                Part::Own => self.line_of(out, Count::METRICS, Part::Globals, workers, |at| {
                    sources.workers.iter().map(|block| block.cells[at].load(super::Relaxed)).sum()
                }),
                Part::Globals => self.line_of(out, Global::METRICS, Part::States, 1, |at| {
                    sources.globals.cells[at].load(super::Relaxed)
                }),
                Part::States => self.slots_of(out, enough, SlotState::METRICS, Part::Counts, 1, |at, one| {
                    let state = [SlotState::Healthy, SlotState::InFlight, SlotState::Weight, SlotState::Expiry][at];
                    let number = (sources.state)(state, one);
                    // A certificate that was not seen would be told to have expired long ago.
                    (state != SlotState::Expiry || number > 0).then_some(number)
                }),
                Part::Counts => self.slots_of(out, enough, SlotCount::METRICS, Part::Times, workers, |at, one| {
                    Some(sources.workers.iter().map(|block| block.slot_cell(one.slot, one.generation, at)).sum())
                }),
                Part::Times => self.times(out, enough, sources),
                Part::Done => {}
            }
        }
        self.part != Part::Done
    }

    /// Whether a portion is at its end.
    fn is_full(&self, out: &str, enough: usize) -> bool {
        out.len() >= enough || self.cells >= METRICS_CELLS
    }

    /// One line of a table that has one number for each, made of so many cells.
    fn line_of(&mut self, out: &mut String, table: &[Metric], then: Part, cells: usize, number: impl Fn(usize) -> u64) {
        let Some(metric) = table.get(self.line) else {
            (self.part, self.line) = (then, 0);
            return;
        };
        if self.line == 0 || table[self.line - 1].family != metric.family {
            head(out, metric, kind(metric.kind));
        }
        let _ = write!(out, "{}", Name(metric.family));
        if !metric.label.is_empty() {
            let _ = write!(out, "{{{}}}", metric.label);
        }
        value(out, metric.kind, number(self.line));
        self.line += 1;
        self.cells += cells;
    }

    /// A family of a table that has a number, made of so many cells, for each slot: all its lines for
    /// one slot after another. What has none is left out.
    fn slots_of(
        &mut self,
        out: &mut String,
        enough: usize,
        table: &[Metric],
        then: Part,
        cells: usize,
        number: impl Fn(usize, &Labelled) -> Option<u64>,
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
                let Some(number) = number(at, one) else { continue };
                let _ = write!(out, "{}{{{}", Name(metric.family), one.labels);
                if !metric.label.is_empty() {
                    let _ = write!(out, ",{}", metric.label);
                }
                out.push('}');
                value(out, metric.kind, number);
            }
            self.slot += 1;
            self.cells += lines * cells;
            if self.is_full(out, enough) && self.slot < self.slots.len() {
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
            histogram(out, &Name(metric.family), &one.labels, &totals);
            self.slot += 1;
            self.cells += Histogram::CELLS * sources.workers.len();
            if self.is_full(out, enough) && self.slot < self.slots.len() {
                return;
            }
        }
        self.line += 1;
        self.slot = 0;
    }
}

fn histogram(out: &mut String, family: &Name, labels: &str, totals: &Totals) {
    let mut count = 0;
    for (at, more) in totals.counts.iter().enumerate() {
        count += more;
        let _ = write!(out, "{family}_bucket{{{labels},le=\"");
        match BOUNDS_US.get(at) {
            Some(bound) => seconds(out, *bound),
            None => out.push_str("+Inf"),
        }
        let _ = writeln!(out, "\"}} {count}");
    }
    let _ = write!(out, "{family}_sum{{{labels}}} ");
    seconds(out, totals.sum_us);
    let _ = writeln!(out, "\n{family}_count{{{labels}}} {count}");
}

fn head(out: &mut String, metric: &Metric, kind: &str) {
    let name = Name(metric.family);
    let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
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

    /// The README's table: a line for each family.
    fn readme_table() -> String {
        let backends = "`backend`, `address`";
        let tables = [
            (SlotCount::METRICS, backends),
            (SlotTime::METRICS, backends),
            (SlotState::METRICS, backends),
            (Count::METRICS, ""),
            (Global::METRICS, ""),
        ];
        let mut table = "| metric | labels | what it tells |\n|---|---|---|\n".to_string();
        for (metrics, shared) in tables {
            for family in metrics.chunk_by(|one, next| one.family == next.family) {
                let own = family[0].label.split_once('=').map(|(name, _)| format!("`{name}`"));
                let labels = [own.as_deref(), Some(shared).filter(|shared| !shared.is_empty())];
                let labels = labels.into_iter().flatten().collect::<Vec<_>>().join(", ");
                let _ = writeln!(table, "| `{}` | {labels} | {} |", Name(family[0].family), family[0].help);
            }
        }
        table
    }

    #[test]
    fn readme_has_the_table_of_metrics() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let readme = std::fs::read_to_string(path).expect("README.md stands beside Cargo.toml");
        let table = readme.split_once("<!-- metrics -->\n").and_then(|(_, rest)| rest.split_once("<!-- /metrics -->"));
        let expected = readme_table();
        assert!(
            table.is_some_and(|(table, _)| table == expected),
            "README.md must have this between the lines `<!-- metrics -->` and `<!-- /metrics -->`:\n\n{expected}"
        );
    }

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
        // Of the first no certificate was seen.
        let state =
            |state, one: &Labelled| if state == SlotState::Expiry { one.slot as u64 - 1 } else { one.slot as u64 };
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
        has("process_cpu_seconds_total 3");
        has(r#"zzz_lb_requests_total{backend="a\"b\\c\nd",address="10.0.0.1:80",code="2xx"} 1"#);
        has(r#"zzz_lb_requests_total{backend="a\"b\\c\nd",address="10.0.0.1:80",code="5xx"} 1"#);
        has(r#"zzz_lb_requests_total{backend="unix:/s",address="/s",code="2xx"} 0"#);
        has(r#"zzz_lb_certificate_expiry_seconds{backend="unix:/s",address="/s"} 1"#);
        assert_eq!(text.matches("certificate_expiry_seconds{").count(), 1, "{text}");
        has(r#"zzz_lb_request_duration_seconds_bucket{backend="a\"b\\c\nd",address="10.0.0.1:80",le="0.0005"} 0"#);
        has(r#"zzz_lb_request_duration_seconds_bucket{backend="a\"b\\c\nd",address="10.0.0.1:80",le="0.001"} 2"#);
        has(r#"zzz_lb_request_duration_seconds_count{backend="a\"b\\c\nd",address="10.0.0.1:80"} 2"#);
        has(r#"zzz_lb_request_duration_seconds_sum{backend="a\"b\\c\nd",address="10.0.0.1:80"} 0.0014"#);
    }

    type Labels<'a> = Vec<(&'a str, String)>;

    /// A sample's name and its labels, `le` apart.
    fn parsed(series: &str) -> (&str, Labels<'_>, Option<String>) {
        let (name, mut rest) = series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest));
        let (mut labels, mut bound) = (Vec::new(), None);
        assert!(rest.is_empty() || rest.ends_with('}'), "{series}");
        while !rest.is_empty() && rest != "}" {
            let (label, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("{series}"));
            assert!(label.bytes().all(|b| b.is_ascii_lowercase()), "{series}");
            let (mut value, mut escaped, mut end) = (String::new(), false, None);
            for (at, c) in quoted.char_indices() {
                match (escaped, c) {
                    (true, 'n') => value.push('\n'),
                    (true, '\\' | '"') => value.push(c),
                    (true, _) => panic!("{series}: \\{c}"),
                    (false, '\\') => {}
                    (false, '"') => {
                        end = Some(at);
                        break;
                    }
                    (false, _) => value.push(c),
                }
                escaped = !escaped && c == '\\';
            }
            rest = &quoted[end.unwrap_or_else(|| panic!("{series}: not closed")) + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
            if label == "le" { bound = Some(value) } else { labels.push((label, value)) }
        }
        (name, labels, bound)
    }

    /// Finds fault with a text that is not as it is to be (exposition formats, text-based format).
    fn check(text: &str) {
        assert!(text.ends_with('\n'));
        let (mut families, mut series) = (BTreeSet::new(), BTreeSet::new());
        let (mut family, mut kind) = ("", "");
        // Of the histogram that is being read: labels, last bound, and how much lies below it.
        let mut below: Option<(Labels<'_>, f64, u64)> = None;
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(named) = line.strip_prefix("# HELP ") {
                let help;
                (family, help) = named.split_once(' ').unwrap();
                assert!(families.insert(family) && !help.is_empty(), "{line}");
                assert!(family.starts_with("zzz_lb_") || family.starts_with("process_"), "{line}");
                assert!(family.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()), "{line}");
                let typed = lines.next().and_then(|line| line.strip_prefix("# TYPE ")).unwrap();
                kind = typed.strip_prefix(family).unwrap().trim_start();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{typed}");
                assert_eq!(family.ends_with("_total"), kind == "counter", "{typed}");
                continue;
            }
            let (name, number) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(name), "{name} comes twice");
            assert!(number.parse::<f64>().is_ok_and(|number| number >= 0.0), "{line}");
            let (name, labels, bound) = parsed(name);
            match name.strip_prefix(family).unwrap_or_else(|| panic!("{line} stands with {family}")) {
                "" => assert!(kind != "histogram" && bound.is_none(), "{line}"),
                "_bucket" => {
                    let bound = bound.unwrap().replace("+Inf", "inf").parse::<f64>().unwrap();
                    let (of, last, count) = below.take().unwrap_or((labels.clone(), 0.0, 0));
                    let number = number.parse().unwrap();
                    assert!(of == labels && last < bound && count <= number, "{line}");
                    below = Some((labels, bound, number));
                }
                "_sum" => assert_eq!(below.as_ref().map(|below| &below.0), Some(&labels), "{line}"),
                "_count" => {
                    assert_eq!(below.take(), Some((labels, f64::INFINITY, number.parse().unwrap())), "{line}")
                }
                _ => panic!("{line} stands with {family}"),
            }
        }
    }

    #[test]
    fn nothing_is_malformed_and_no_series_comes_twice() {
        let text = text(usize::MAX);
        check(&text);
        let count = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(count("# HELP "), count("# TYPE "));
        assert_eq!(count("zzz_lb_request_duration_seconds_bucket{"), 2 * (BOUNDS_US.len() + 1));
        assert!(parsed(r#"x{backend="a\"b\\c\nd"}"#).1.contains(&("backend", "a\"b\\c\nd".to_string())));
    }

    /// A text's portions, about so many backends, with what happens before each.
    fn portions(workers: &[Block], slots: usize, enough: usize, mut before: impl FnMut(usize)) -> Vec<String> {
        let labelled = (0..slots).map(|slot| Labelled::new(slot, 1, &format!("b{slot}"), "/s")).collect();
        let sources = Sources { workers, globals: private(0), state: &|_, _| 1 };
        let (mut exposition, mut portions) = (Exposition::new(labelled), Vec::new());
        loop {
            before(portions.len());
            let mut portion = String::new();
            let more = exposition.write(&sources, &mut portion, enough);
            portions.push(portion);
            if !more {
                return portions;
            }
        }
    }

    #[test]
    fn a_portion_is_bounded_in_bytes() {
        let portions = portions(&[private(300)], 300, 16 << 10, |_| {});
        assert!(portions.len() > 50);
        assert!(portions.iter().all(|portion| portion.len() < (16 << 10) + 4096 && !portion.is_empty()));
        check(&portions.concat());
    }

    #[test]
    fn a_portion_is_bounded_in_cells_that_are_read() {
        let workers = vec![private(8); 2000];
        let portions = portions(&workers, 8, usize::MAX, |_| {});
        // One histogram of so many workers takes more cells than a portion may.
        const { assert!(2000 * Histogram::CELLS > METRICS_CELLS) };
        assert!(portions.iter().all(|portion| portion.matches("_sum{").count() <= 1));
        check(&portions.concat());
    }

    #[test]
    fn no_backends_are_no_trouble() {
        let text = portions(&[], 0, usize::MAX, |_| {}).concat();
        check(&text);
        assert!(text.contains("# TYPE zzz_lb_healthy gauge\n") && !text.contains("backend="));
    }

    #[test]
    fn slots_may_change_hands_while_a_text_is_made() {
        let block = private(20);
        (0..20).for_each(|slot| block.adopt(slot, 1));
        (0..20).for_each(|slot| block.observe(SlotTime::Request, slot, 5));
        // More slots than the block has cells for, of which one after another goes to somebody else.
        let text = portions(&[block], 25, 1, |n| block.adopt(n % 20, 2)).concat();
        check(&text);
        assert!(text.contains("zzz_lb_request_duration_seconds_count{backend=\"b3\",address=\"/s\"} 0\n"));
    }
}
