//! The timer that the benches share: nanoseconds per operation, and their ratio to a reference.
//!
//! Time alone says little from one machine, or one minute, to another. So every row is measured
//! in turns with a reference loop, and what is kept and compared is the ratio of the two: a slow
//! or busy machine slows both. The loop is shifts, xors and loads that hit the first-level cache,
//! in five chains that keep the arithmetic and load ports busy together and leave memory
//! alone, as scanning does: it follows the clock's frequency and, which a loop of one chain would
//! not, a busy sibling thread. A row bound by latency feels a sibling less than the reference
//! does, and so its ratio falls in noise instead of rising. No loop makes up for a different
//! processor or other compiler flags: a baseline belongs to one kind of machine.
//!
//! A measurement is `ROUNDS` turns of a batch of the reference and a batch of the row; of each
//! the fastest counts, since noise only ever adds time. What runs, by arguments and environment:
//!
//! - `cargo bench` (which passes `--bench`): every row is compared with `benches/baseline.txt`.
//!   One that is over `TOLERANCE` slower is measured again after a pause, up to `RETRIES` times,
//!   and its best ratio counts. If it stays slower the exit status is 1. A row that the baseline
//!   lacks is only shown.
//! - `BENCH_SAVE=1`: each row is measured `RETRIES` times more, and the ratio of the fastest row
//!   to the fastest reference replaces or joins that in the baseline.
//! - A plain argument: only rows whose name contains it.
//! - Without `--bench` (as `cargo test --benches` does): each row runs once, and nothing is timed.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How much slower than the baseline a ratio may be.
const TOLERANCE: f64 = 0.15;
/// How often a row that seems slower is measured again before that is believed.
const RETRIES: usize = 6;
/// Turns of reference and row in one measurement.
const ROUNDS: usize = 60;
/// The time given to noise to pass before a row is measured again.
const PAUSE: Duration = Duration::from_millis(500);
/// The time that one batch is made to take: long beside a clock read, short beside a time slice.
const BATCH: Duration = Duration::from_micros(500);
/// Steps of the reference loop in one call.
const REFERENCE_STEPS: u64 = 512;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/baseline.txt");

/// What one measurement found.
#[derive(Clone, Copy)]
struct Measured {
    /// For one operation.
    fastest_ns: f64,
    /// For one operation.
    median_ns: f64,
    /// For one step of the reference, the fastest.
    reference_ns: f64,
}

impl Measured {
    fn ratio(self) -> f64 {
        self.fastest_ns / self.reference_ns
    }

    /// The fastest of both, each from whichever measurement met less noise.
    fn fastest(self, again: Measured) -> Measured {
        let reference_ns = self.reference_ns.min(again.reference_ns);
        let faster = if again.fastest_ns < self.fastest_ns { again } else { self };
        Measured { reference_ns, ..faster }
    }
}

/// What a row is held against: a loop of so many steps a call, and how much slower than the
/// baseline their ratio may be.
pub struct Against<R> {
    pub steps: u64,
    pub tolerance: f64,
    pub run: R,
}

/// The rows of one bench binary. Make one, call [`Timer::row`] for each row, then
/// [`Timer::finish`].
pub struct Timer {
    filter: Option<String>,
    smoke: bool,
    save: bool,
    baseline: BTreeMap<String, f64>,
    measured: BTreeMap<String, f64>,
    slower: Vec<String>,
}

impl Timer {
    /// A timer set up from the arguments, the environment and the baseline.
    pub fn new() -> Timer {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        println!("{:<34} {:>9} {:>9} {:>7} {:>8} {:>8}", "row", "ns/op", "median", "GB/s", "ratio", "change");
        Timer {
            filter: arguments.iter().find(|argument| !argument.starts_with('-')).cloned(),
            smoke: !arguments.iter().any(|argument| argument == "--bench"),
            save: std::env::var_os("BENCH_SAVE").is_some_and(|value| value == "1"),
            baseline: read_baseline(),
            measured: BTreeMap::new(),
            slower: Vec::new(),
        }
    }

    /// Measures `run`, one call of which does `operations` operations over `bytes` bytes in all
    /// (0 where bytes mean nothing). `name` has no white space, and is the same on every machine.
    /// What `run` returns is only kept from being optimised away.
    pub fn row<T>(&mut self, name: &str, operations: usize, bytes: usize, run: impl FnMut() -> T) {
        let mut table = [0; 256];
        for (at, entry) in table.iter_mut().enumerate() {
            *entry = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        let reference = Against { steps: REFERENCE_STEPS, tolerance: TOLERANCE, run: || reference(black_box(&table)) };
        self.row_against(name, operations, bytes, run, reference);
    }

    /// The same as `row`, against a reference of the row's own and with a tolerance of its own.
    pub fn row_against<T, R>(
        &mut self,
        name: &str,
        operations: usize,
        bytes: usize,
        mut run: impl FnMut() -> T,
        mut reference: Against<impl FnMut() -> R>,
    ) {
        assert!(!name.contains(char::is_whitespace), "a row's name is one word in the baseline: {name}");
        if self.filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
            return;
        }
        if self.smoke {
            black_box(run());
            println!("{name:<34} (ran once)");
            return;
        }
        let before = self.baseline.get(name).copied();
        let is_slower =
            |found: Measured| before.is_some_and(|before| found.ratio() > before * (1.0 + reference.tolerance));
        let mut best = measure(operations, &mut run, reference.steps, &mut reference.run);
        for _ in 0..RETRIES {
            if !self.save && !is_slower(best) {
                break;
            }
            std::thread::sleep(PAUSE);
            let again = measure(operations, &mut run, reference.steps, &mut reference.run);
            if self.save {
                best = best.fastest(again);
            } else if again.ratio() < best.ratio() {
                best = again;
            }
        }
        show(name, bytes as f64 / operations as f64, best, before);
        self.measured.insert(name.to_owned(), best.ratio());
        if is_slower(best) {
            self.slower.push(name.to_owned());
        }
    }

    /// Saves the baseline where that was asked for; else exits with 1 if a row was slower.
    pub fn finish(self) {
        if self.save && !self.smoke {
            // Read again: another bench binary may have saved its rows in the meantime.
            let mut baseline = read_baseline();
            baseline.extend(self.measured);
            if let Err(error) = write_baseline(&baseline) {
                eprintln!("cannot write {BASELINE}: {error}");
                std::process::exit(1);
            }
        } else if !self.slower.is_empty() {
            eprintln!("slower than the baseline beyond tolerance: {}", self.slower.join(", "));
            std::process::exit(1);
        }
    }
}

fn show(name: &str, bytes: f64, found: Measured, before: Option<f64>) {
    let speed = if bytes > 0.0 { format!("{:.2}", bytes / found.fastest_ns) } else { "-".to_owned() };
    let change = match before {
        Some(before) => format!("{:+.1} %", (found.ratio() / before - 1.0) * 100.0),
        None => "new".to_owned(),
    };
    let Measured { fastest_ns, median_ns, .. } = found;
    println!("{name:<34} {fastest_ns:>9.2} {median_ns:>9.2} {speed:>7} {:>8.3} {change:>8}", found.ratio());
}

/// Measures in turns the reference and `run`, after finding batch sizes that take `BATCH`.
fn measure<T, R>(
    operations: usize,
    run: &mut impl FnMut() -> T,
    steps: u64,
    mut reference: &mut impl FnMut() -> R,
) -> Measured {
    let reference_calls = calls_per_batch(reference);
    let calls = calls_per_batch(run);
    let (mut reference_ns, mut run_ns) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        reference_ns.push(batch_ns(reference_calls, &mut reference) / (reference_calls * steps) as f64);
        run_ns.push(batch_ns(calls, run) / (calls * operations as u64) as f64);
    }
    reference_ns.sort_by(f64::total_cmp);
    run_ns.sort_by(f64::total_cmp);
    Measured { fastest_ns: run_ns[0], median_ns: run_ns[ROUNDS / 2], reference_ns: reference_ns[0] }
}

/// The reference loop; one step is the unit of every ratio.
fn reference(table: &[u64; 256]) -> u64 {
    let (mut state, mut sums) = (1_u64, [0_u64; 4]);
    for _ in 0..REFERENCE_STEPS {
        state = state.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(1);
        for (lane, sum) in sums.iter_mut().enumerate() {
            let entry = table[(state >> (8 * lane + 8) & 0xff) as usize];
            *sum = (*sum ^ entry).rotate_left(5);
        }
    }
    sums.iter().fold(state, |all, sum| all ^ sum)
}

fn calls_per_batch<T>(run: &mut impl FnMut() -> T) -> u64 {
    let mut calls = 1;
    loop {
        let ns = batch_ns(calls, run);
        let wanted_ns = BATCH.as_nanos() as f64;
        if ns >= wanted_ns / 2.0 {
            return ((calls as f64 * wanted_ns / ns) as u64).max(1);
        }
        calls *= 2;
    }
}

fn batch_ns<T>(calls: u64, run: &mut impl FnMut() -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        black_box(run());
    }
    start.elapsed().as_nanos() as f64
}

/// Lines of a name and a ratio; those that begin with `#`, and those that do not read so, are
/// left out. No file is an empty baseline.
fn read_baseline() -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(BASELINE).unwrap_or_default();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (name, ratio) = line.split_once(' ')?;
            Some((name.to_owned(), ratio.trim().parse().ok()?))
        })
        .collect()
}

fn write_baseline(rows: &BTreeMap<String, f64>) -> std::io::Result<()> {
    let mut text = String::from("# Ratios to the reference loop (benches/timer): renewed by `make bench-save`.\n");
    for (name, ratio) in rows {
        text.push_str(&format!("{name} {ratio:.3}\n"));
    }
    std::fs::write(BASELINE, text)
}
