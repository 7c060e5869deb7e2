//! Log lines: levels, format, and the hex dump of `--trace`.
//!
//! A [`Log`] only collects text. The owner of a descriptor writes it once per turn. The pure core can therefore
//! log, and a burst of lines costs one system call. A line has the form
//! `2026-01-02T03:04:05.678Z info health: text`. Control bytes are escaped, so that network input cannot forge
//! a line. systemd's journal stores a time and a priority with each line, so there the form is
//! `<6>info health: text` (sd-daemon(3)).

pub mod repeats;

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

/// True if stderr is the journal.
static JOURNAL: AtomicBool = AtomicBool::new(false);

/// Makes all later logs use the format of systemd's journal.
pub fn use_journal() {
    JOURNAL.store(true, Ordering::Relaxed);
}

/// The severity of a line, the highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A failure that a person must fix.
    Err,
    /// A fault that the program works around.
    Warn,
    /// A change of state.
    Info,
    /// Details for a person who looks for a fault.
    Debug,
}

impl Level {
    /// All levels with the names that the command line accepts.
    pub const NAMES: [(&'static str, Level); 4] =
        [("err", Level::Err), ("warn", Level::Warn), ("info", Level::Info), ("debug", Level::Debug)];

    /// The priority for the journal (syslog(3)).
    fn priority(self) -> char {
        match self {
            Level::Err => '3',
            Level::Warn => '4',
            Level::Info => '6',
            Level::Debug => '7',
        }
    }

    /// The name used on the command line and in a log line.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].0
    }
}

/// The priority of a trace: that of debug lines.
const TRACE_PRIORITY: char = '7';

/// Lines that are not yet written.
#[derive(Debug)]
pub struct Log {
    level: Level,
    journal: bool,
    text: String,
    unix_us: u64,
    stamp: [u8; 24],
    stamp_ms: u64,
}

impl Log {
    /// Creates a log that keeps lines of `level` and above.
    pub fn new(level: Level) -> Log {
        let journal = JOURNAL.load(Ordering::Relaxed);
        Log { level, journal, text: String::new(), unix_us: 0, stamp: *b"1970-01-01T00:00:00.000Z", stamp_ms: 0 }
    }

    /// Sets the lowest level that is kept.
    pub fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    /// Sets the wall clock of later lines, in microseconds since 1970.
    pub fn set_clock(&mut self, unix_us: u64) {
        self.unix_us = unix_us;
    }

    /// The wall clock last set, in microseconds since 1970.
    pub fn clock(&self) -> u64 {
        self.unix_us
    }

    /// True if lines of `level` are kept. Callers check it before they build an expensive line.
    pub fn enabled(&self, level: Level) -> bool {
        level <= self.level
    }

    /// Adds a line. `module` names the part that logs it.
    pub fn line(&mut self, level: Level, module: &str, text: fmt::Arguments<'_>) {
        if !self.enabled(level) {
            return;
        }
        self.add(level.priority(), level.name(), module, text);
    }

    /// Adds a line of a trace, regardless of the level. `module` names the part that logs it.
    pub fn trace(&mut self, module: &str, text: fmt::Arguments<'_>) {
        self.add(TRACE_PRIORITY, "trace", module, text);
    }

    fn add(&mut self, priority: char, kind: &str, module: &str, text: fmt::Arguments<'_>) {
        self.begin_line(priority);
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{kind} {module}: ");
        let _ = write!(Escaped(&mut self.text), "{text}");
        self.text.push('\n');
    }

    /// Adds a line with a label and below it a dump of `bytes`, regardless of the level. Each row has an
    /// offset, sixteen bytes in hex with a gap after eight, and ASCII.
    pub fn dump(&mut self, label: fmt::Arguments<'_>, bytes: &[u8]) {
        self.begin_line(TRACE_PRIORITY);
        self.text.push_str("trace ");
        let _ = write!(Escaped(&mut self.text), "{label}");
        let _ = writeln!(self.text, " ({} bytes)", bytes.len());
        hex_dump(&mut self.text, if self.journal { "<7>" } else { "" }, bytes);
    }

    fn begin_line(&mut self, priority: char) {
        if self.journal {
            self.text.extend(['<', priority, '>']);
            return;
        }
        self.refresh_stamp();
        self.text.push_str(std::str::from_utf8(&self.stamp).unwrap_or_default());
        self.text.push(' ');
    }

    /// True if there is text to write.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The collected text. The owner writes it and then calls `clear`.
    pub fn text(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Discards the text after it was written.
    pub fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(16 * 1024);
    }

    fn refresh_stamp(&mut self) {
        let ms = self.unix_us / 1000;
        if ms != self.stamp_ms {
            self.stamp_ms = ms;
            self.stamp = timestamp(self.unix_us);
        }
    }
}

/// Replaces control bytes in text by `\xNN`.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            if c.is_control() {
                write!(self.0, "\\x{:02x}", c as u32)?;
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

/// `before` is the prefix of each line.
fn hex_dump(out: &mut String, before: &str, bytes: &[u8]) {
    for (row, line) in bytes.chunks(16).enumerate() {
        let _ = write!(out, "{before}  {:08x} ", row * 16);
        for column in 0..16 {
            if column == 8 {
                out.push(' ');
            }
            match line.get(column) {
                Some(byte) => _ = write!(out, " {byte:02x}"),
                None => out.push_str("   "),
            }
        }
        out.push_str("  |");
        out.extend(line.iter().map(|&b| if (0x20..0x7f).contains(&b) { b as char } else { '.' }));
        out.push_str("|\n");
    }
}

/// A civil date in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// The year, from 1970.
    pub year: u32,
    /// The month, 1 to 12.
    pub month: u32,
    /// The day, 1 to 31.
    pub day: u32,
    /// The day of the week, 0 for Sunday.
    pub weekday: u32,
    /// The second of the day.
    pub second: u32,
}

/// The date of a second since 1970, in the proleptic Gregorian calendar.
pub fn civil(unix_s: u64) -> Civil {
    let days = unix_s / 86_400;
    // Years begin in March here, so that the leap day is the last day of a year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    Civil {
        year: (year_of_era + era * 400 + u64::from(month <= 2)) as u32,
        month: month as u32,
        day: (day_of_year - (153 * from_march + 2) / 5 + 1) as u32,
        weekday: ((days + 4) % 7) as u32,
        second: (unix_s % 86_400) as u32,
    }
}

fn digits(out: &mut [u8], mut value: u32) {
    for slot in out.iter_mut().rev() {
        *slot = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// `2026-01-02T03:04:05.678Z` for a wall clock in microseconds since 1970.
pub fn timestamp(unix_us: u64) -> [u8; 24] {
    let date = civil(unix_us / 1_000_000);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    digits(&mut text[0..4], date.year);
    digits(&mut text[5..7], date.month);
    digits(&mut text[8..10], date.day);
    digits(&mut text[11..13], date.second / 3600);
    digits(&mut text[14..16], date.second / 60 % 60);
    digits(&mut text[17..19], date.second % 60);
    digits(&mut text[20..23], (unix_us / 1000 % 1000) as u32);
    text
}

/// `Fri, 02 Jan 2026 03:04:05 GMT`: an IMF-fixdate (RFC 9110, 5.6.7) for a second since 1970.
pub fn http_date(unix_s: u64) -> [u8; 29] {
    let date = civil(unix_s);
    let mut text = *b"Sun, 00 Jan 0000 00:00:00 GMT";
    let day = date.weekday as usize * 3;
    text[0..3].copy_from_slice(&b"SunMonTueWedThuFriSat"[day..day + 3]);
    let month = (date.month as usize - 1) * 3;
    text[8..11].copy_from_slice(&b"JanFebMarAprMayJunJulAugSepOctNovDec"[month..month + 3]);
    digits(&mut text[5..7], date.day);
    digits(&mut text[12..16], date.year);
    digits(&mut text[17..19], date.second / 3600);
    digits(&mut text[20..22], date.second / 60 % 60);
    digits(&mut text[23..25], date.second % 60);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(log: &Log) -> &str {
        std::str::from_utf8(log.text()).unwrap()
    }

    #[test]
    fn lines_for_the_journal_carry_a_priority_and_no_time() {
        let mut log = Log { journal: true, ..Log::new(Level::Debug) };
        for (_, level) in Level::NAMES {
            log.line(level, "a", format_args!("b\n<0>c"));
        }
        log.dump(format_args!("d"), b"e");
        let text = String::from_utf8_lossy(log.text()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let escaped = "a: b\\x0a<0>c";
        assert_eq!(lines[0], format!("<3>err {escaped}"));
        assert_eq!(lines[1], format!("<4>warn {escaped}"));
        assert_eq!(lines[2], format!("<6>info {escaped}"));
        assert_eq!(lines[3], format!("<7>debug {escaped}"));
        assert_eq!(lines[4], "<7>trace d (1 bytes)");
        assert!(lines[5].starts_with("<7>  00000000  65 "), "{text}");
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn a_line_has_time_level_module_and_text() {
        let mut log = Log::new(Level::Info);
        log.set_clock(1_767_323_045_678_000);
        log.line(Level::Info, "health", format_args!("backend {} down", "127.0.0.1:9001"));
        assert_eq!(written(&log), "2026-01-02T03:04:05.678Z info health: backend 127.0.0.1:9001 down\n");
    }

    #[test]
    fn lines_below_the_level_are_dropped() {
        let mut log = Log::new(Level::Warn);
        log.line(Level::Info, "x", format_args!("y"));
        assert!(log.is_empty());
    }

    #[test]
    fn control_bytes_cannot_forge_a_line() {
        let mut log = Log::new(Level::Info);
        log.line(Level::Info, "x", format_args!("a\nb\x1b[31m\u{9b}"));
        assert!(written(&log).ends_with("x: a\\x0ab\\x1b[31m\\x9b\n"), "{}", written(&log));
    }

    #[test]
    fn dumps_sixteen_bytes_a_line_with_a_gap_after_eight() {
        let mut log = Log::new(Level::Err);
        log.dump(format_args!("client 1 head"), b"GET / HTTP/1.1\r\n\r\n");
        let lines: Vec<&str> = written(&log).lines().collect();
        assert!(lines[0].ends_with("trace client 1 head (18 bytes)"), "{}", lines[0]);
        assert_eq!(lines[1], "  00000000  47 45 54 20 2f 20 48 54  54 50 2f 31 2e 31 0d 0a  |GET / HTTP/1.1..|");
        assert_eq!(lines[2], "  00000010  0d 0a                                             |..|");
    }

    #[test]
    fn dates_are_right_around_leap_days_and_centuries() {
        let at = |unix_s| String::from_utf8(http_date(unix_s).to_vec()).unwrap();
        assert_eq!(at(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(at(951_827_696), "Tue, 29 Feb 2000 12:34:56 GMT");
        assert_eq!(at(1_735_689_599), "Tue, 31 Dec 2024 23:59:59 GMT");
        assert_eq!(at(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
