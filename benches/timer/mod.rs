//! The timer of the benches: nanoseconds per operation, and their ratio to a reference.
//!
//! Times alone cannot be compared between machines or minutes. Every row is therefore measured in turns with a
//! reference loop, and the ratio of the two is stored and compared: a slow or busy machine slows both. The loop
//! consists of shifts, xors and loads that hit the first-level cache, in five chains that keep the arithmetic and
//! load ports busy and do not use memory, like scanning. It follows the clock's frequency and, unlike a loop of
//! one chain, a busy sibling thread. A row bound by latency is slowed less by a sibling than the reference, so
//! noise lowers its ratio instead of raising it. No loop compensates for a different processor, so each model has
//! a baseline, `benches/baseline/MODEL.txt`. Without a baseline, rows are shown and not compared, and the bench
//! says so.
//!
//! A measurement is `ROUNDS` turns of a batch of the reference and a batch of the row. The fastest of each
//! counts, because noise only adds time. On a shared machine there are periods of seconds in which everything
//! bound by throughput, including the reference, takes a quarter longer, and random reads take longer still. If
//! there are several measurements, the fastest row of all is therefore compared with the fastest reference of
//! all. The lowest ratio would come from the period that slowed the reference most.
//!
//! Arguments and environment:
//!
//! - `cargo bench` (which passes `--bench`): every row is compared with the model's baseline. A row that is more
//!   than `TOLERANCE` slower is measured again after a pause, up to `RETRIES` times, then in up to `PROCESSES`
//!   fresh processes, which outlast a slow period and have memory of their own. If it stays slower, the exit
//!   status is not 0. A row without a baseline is only shown.
//! - `BENCH_SAVE=1`: each row is measured as often as one that stays slower, and is stored in the baseline.
//! - A plain argument: only rows whose name contains it.
//! - Without `--bench` (as with `cargo test --benches`): each row runs once, without timing.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// The allowed slowdown of a ratio against the baseline.
pub const TOLERANCE: f64 = 0.15;
/// The number of repeated measurements of a row that seems slower.
const RETRIES: usize = 2;
/// Rounds of reference and row in one measurement.
const ROUNDS: usize = 60;
/// Fresh processes that measure a row again if the retries have not helped.
const PROCESSES: usize = 3;
/// The variable that passes the number of remaining processes on.
const LEFT: &str = "BENCH_PROCESSES_LEFT";
/// The variable that passes the rows to measure on, one per line, with their previous results.
const ROWS: &str = "BENCH_ROWS";
/// The pause before a row is measured again, so that noise can pass.
const PAUSE: Duration = Duration::from_millis(500);
/// The duration of a batch: long compared with a clock read, short compared with a time slice.
const BATCH: Duration = Duration::from_micros(500);
/// Steps of the reference loop in one call.
const REFERENCE_STEPS: u64 = 512;

const BASELINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/baseline");

/// The baseline's file for this model of processor.
fn baseline_path() -> PathBuf {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, model)| model);
    let model = model.unwrap_or(std::env::consts::ARCH).to_lowercase();
    let words: Vec<&str> = model.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    Path::new(BASELINES).join(words.join("_")).with_extension("txt")
}

/// The result of one measurement.
#[derive(Clone, Copy)]
struct Measured {
    /// Per operation.
    fastest_ns: f64,
    /// Per operation.
    median_ns: f64,
    /// Per step of the reference, the fastest.
    reference_ns: f64,
}

impl Measured {
    fn ratio(self) -> f64 {
        self.fastest_ns / self.reference_ns
    }

    /// The fastest of both, each from the measurement with less noise.
    fn fastest(self, again: Measured) -> Measured {
        let reference_ns = self.reference_ns.min(again.reference_ns);
        let faster = if again.fastest_ns < self.fastest_ns { again } else { self };
        Measured { reference_ns, ..faster }
    }
}

/// The reference of a row: a loop with this number of steps per call, and the allowed slowdown of the ratio
/// against the baseline.
pub struct Against<R> {
    pub steps: u64,
    pub tolerance: f64,
    /// The highest allowed ratio, regardless of the baseline.
    pub most: Option<f64>,
    /// The duration of a batch of either.
    pub batch: Duration,
    pub run: R,
}

/// The rows of one bench binary. Create one, call [`Timer::row`] for each row, then return the result of
/// [`Timer::finish`].
pub struct Timer {
    filter: Option<String>,
    /// The rows to measure, with the results of earlier processes. `None` for all rows.
    rows: Option<BTreeMap<String, Measured>>,
    /// The number of fresh processes that may follow.
    left: usize,
    smoke: bool,
    save: bool,
    baseline: BTreeMap<String, f64>,
    measured: BTreeMap<String, Measured>,
    slower: Vec<String>,
}

impl Timer {
    /// Creates a timer from the arguments, the environment and the baseline.
    pub fn new() -> Timer {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        if std::env::var_os(ROWS).is_none() {
            println!("{:<34} {:>9} {:>9} {:>7} {:>8} {:>8}", "row", "ns/op", "median", "GB/s", "ratio", "change");
            if !baseline_path().exists() {
                println!(
                    "{} does not exist: nothing is compared; `make bench-save` makes it",
                    baseline_path().display()
                );
            }
        }
        Timer {
            filter: arguments.iter().find(|argument| !argument.starts_with('-')).cloned(),
            rows: std::env::var(ROWS).ok().map(|rows| rows.lines().filter_map(read_measured).collect()),
            left: std::env::var(LEFT).ok().and_then(|left| left.parse().ok()).unwrap_or(PROCESSES),
            smoke: !arguments.iter().any(|argument| argument == "--bench"),
            save: std::env::var_os("BENCH_SAVE").is_some_and(|value| value == "1"),
            baseline: read_baseline(),
            measured: BTreeMap::new(),
            slower: Vec::new(),
        }
    }

    /// Measures `run`, one call of which does `operations` operations over `bytes` bytes in total (0 if bytes
    /// do not apply). `name` has no white space, and is the same on every machine. The return value of `run`
    /// only keeps the work from being optimised away.
    pub fn row<T>(&mut self, name: &str, operations: usize, bytes: usize, run: impl FnMut() -> T) {
        self.row_within(name, operations, bytes, TOLERANCE, run);
    }

    /// Like `row`, with its own tolerance.
    pub fn row_within<T>(
        &mut self,
        name: &str,
        operations: usize,
        bytes: usize,
        tolerance: f64,
        run: impl FnMut() -> T,
    ) {
        let mut table = [0; 256];
        for (at, entry) in table.iter_mut().enumerate() {
            *entry = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        let reference = Against {
            steps: REFERENCE_STEPS,
            tolerance,
            most: None,
            batch: BATCH,
            run: || reference(black_box(&table)),
        };
        self.row_against(name, operations, bytes, run, reference);
    }

    /// Like `row`, with its own reference and tolerance.
    pub fn row_against<T, R>(
        &mut self,
        name: &str,
        operations: usize,
        bytes: usize,
        mut run: impl FnMut() -> T,
        mut reference: Against<impl FnMut() -> R>,
    ) {
        assert!(!name.contains(char::is_whitespace), "a row's name is one word in the baseline: {name}");
        if self.smoke {
            black_box(run());
            println!("{name:<34} (ran once)");
        }
        if !self.measures(name) {
            return;
        }
        let before = self.baseline.get(name).copied();
        let most = reference.most.or(before.map(|before| before * (1.0 + reference.tolerance)));
        let is_slower = |found: Measured| most.is_some_and(|most| found.ratio() > most);
        let mut best = measure(operations, &mut run, &mut reference);
        if let Some(&earlier) = self.rows.as_ref().and_then(|rows| rows.get(name)) {
            best = best.fastest(earlier);
        }
        for _ in 0..RETRIES {
            if !self.save && !is_slower(best) {
                break;
            }
            std::thread::sleep(PAUSE);
            best = best.fastest(measure(operations, &mut run, &mut reference));
        }
        show(name, bytes as f64 / operations as f64, best, before);
        self.measured.insert(name.to_owned(), best);
        if is_slower(best) {
            self.slower.push(name.to_owned());
        }
    }

    /// Compares a count, of which less is better, with the baseline. A count has no noise, so it is taken once.
    /// It is stored as a ratio to a reference of one nanosecond.
    #[allow(dead_code, reason = "not every bench counts")]
    pub fn count(&mut self, name: &str, count: f64) {
        let before = self.baseline.get(name).copied();
        println!("{name:<34} {count:>9.2} {:>34}", change(count, before));
        let found = Measured { fastest_ns: count, median_ns: count, reference_ns: 1.0 };
        self.measured.insert(name.to_owned(), found);
        if before.is_some_and(|before| count > before * (1.0 + TOLERANCE)) {
            self.slower.push(name.to_owned());
        }
    }

    /// True if rows are measured and compared, including this one.
    pub fn measures(&self, name: &str) -> bool {
        !self.smoke
            && self.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()))
            && self.rows.as_ref().is_none_or(|rows| rows.contains_key(name))
    }

    /// Saves the baseline on request. Otherwise fails if a row was slower, in this and in all fresh processes.
    /// `main` returns the result, so that everything a bench has started ends first.
    #[must_use]
    pub fn finish(self) -> ExitCode {
        let Timer { mut slower, mut measured, left, save, smoke, .. } = self;
        if smoke {
            return ExitCode::SUCCESS;
        }
        if save {
            // Read again, because another bench binary may have saved its rows meanwhile.
            let mut baseline = read_baseline();
            baseline.extend(measured.iter().map(|(name, found)| (name.clone(), found.ratio())));
            if let Err(error) = write_baseline(&baseline) {
                eprintln!("cannot write {}: {error}", baseline_path().display());
                return ExitCode::FAILURE;
            }
            slower.clear();
        } else {
            measured.retain(|name, _| slower.contains(name));
        }
        match left.checked_sub(1) {
            Some(left) if !measured.is_empty() => measure_again(&measured, left),
            None if !slower.is_empty() => {
                eprintln!("slower than the baseline beyond tolerance: {}", slower.join(", "));
                ExitCode::FAILURE
            }
            _ => ExitCode::SUCCESS,
        }
    }
}

/// Runs this program again for some rows, with the results so far.
fn measure_again(rows: &BTreeMap<String, Measured>, left: usize) -> ExitCode {
    let line = |(name, found): (&String, &Measured)| {
        format!("{name} {} {} {}\n", found.fastest_ns, found.median_ns, found.reference_ns)
    };
    let rows: String = rows.iter().map(line).collect();
    let run = |program| {
        let arguments = std::env::args_os().skip(1);
        Command::new(program).args(arguments).env(ROWS, rows).env(LEFT, left.to_string()).status()
    };
    match std::env::current_exe().and_then(run) {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot measure again: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Parses a line that `measure_again` has written for one row.
fn read_measured(line: &str) -> Option<(String, Measured)> {
    let mut words = line.split(' ');
    let name = words.next()?.to_owned();
    let mut number = || words.next()?.parse().ok();
    Some((name, Measured { fastest_ns: number()?, median_ns: number()?, reference_ns: number()? }))
}

fn show(name: &str, bytes: f64, found: Measured, before: Option<f64>) {
    let speed = if bytes > 0.0 { format!("{:.2}", bytes / found.fastest_ns) } else { "-".to_owned() };
    let change = change(found.ratio(), before);
    let Measured { fastest_ns, median_ns, .. } = found;
    println!("{name:<34} {fastest_ns:>9.2} {median_ns:>9.2} {speed:>7} {:>8.3} {change:>8}", found.ratio());
}

fn change(ratio: f64, before: Option<f64>) -> String {
    match before {
        Some(before) => format!("{:+.1} %", (ratio / before - 1.0) * 100.0),
        None => "new".to_owned(),
    }
}

/// Measures the reference and `run` in turns, after finding batch sizes that take `BATCH`.
fn measure<T, R>(
    operations: usize,
    run: &mut impl FnMut() -> T,
    reference: &mut Against<impl FnMut() -> R>,
) -> Measured {
    let reference_calls = calls_per_batch(reference.batch, &mut reference.run);
    let calls = calls_per_batch(reference.batch, run);
    let reference_operations = (reference_calls * reference.steps) as f64;
    let (mut reference_ns, mut run_ns) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        reference_ns.push(batch_ns(reference_calls, &mut reference.run) / reference_operations);
        run_ns.push(batch_ns(calls, run) / (calls * operations as u64) as f64);
    }
    reference_ns.sort_by(f64::total_cmp);
    run_ns.sort_by(f64::total_cmp);
    Measured { fastest_ns: run_ns[0], median_ns: run_ns[ROUNDS / 2], reference_ns: reference_ns[0] }
}

/// The reference loop. One step is the unit of every ratio. Never inlined, so that it is the same code in each
/// bench.
#[inline(never)]
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

fn calls_per_batch<T>(batch: Duration, run: &mut impl FnMut() -> T) -> u64 {
    let mut calls = 1;
    loop {
        let ns = batch_ns(calls, run);
        let wanted_ns = batch.as_nanos() as f64;
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

/// Parses lines of a name and a ratio. Comments (`#`) and malformed lines are skipped. A missing file is an
/// empty baseline.
fn read_baseline() -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(baseline_path()).unwrap_or_default();
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
    std::fs::create_dir_all(BASELINES)?;
    std::fs::write(baseline_path(), text)
}
