//! Limits the rate of log lines of one kind. The first line of a window is written and the following ones are
//! counted. When the window ends, their number is reported once. Nothing is dropped silently.
//!
//! Pure: the time is an argument. The memory is bounded, because at most `LOG_KINDS` kinds have a window at
//! once. Lines of further kinds share one count.

use crate::limits::{LOG_KINDS, LOG_WINDOW_US};

/// Windows of the kinds of lines, identified by a key.
#[derive(Debug)]
pub struct Repeats<K> {
    windows: Vec<Window<K>>,
    /// The lines of kinds without a window of their own.
    others: Window<()>,
    /// The end of the next window with suppressed lines, in microseconds.
    report_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Window<K> {
    key: K,
    began_us: u64,
    suppressed: u64,
}

impl<K> Window<K> {
    fn end_us(&self) -> u64 {
        self.began_us.saturating_add(LOG_WINDOW_US)
    }
}

/// Lines that were suppressed in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressed<K> {
    /// The kind; `None` for kinds without a window of their own.
    pub key: Option<K>,
    /// The number of lines.
    pub count: u64,
    /// The length of the window, in microseconds.
    pub window_us: u64,
}

impl<K: Copy + PartialEq> Repeats<K> {
    /// Creates an empty set of windows.
    pub fn new() -> Repeats<K> {
        let others = Window { key: (), began_us: 0, suppressed: 0 };
        Repeats { windows: Vec::new(), others, report_us: u64::MAX }
    }

    /// True if a line of this kind must be written. Otherwise it is counted.
    pub fn admits(&mut self, key: K, now_us: u64) -> bool {
        if let Some(window) = self.windows.iter_mut().find(|window| window.key == key) {
            if window.suppressed == 0 && window.end_us() <= now_us {
                window.began_us = now_us;
                return true;
            }
            window.suppressed += 1;
            self.report_us = self.report_us.min(window.end_us());
            return false;
        }
        if self.windows.len() == LOG_KINDS {
            self.windows.retain(|window| window.suppressed > 0 || window.end_us() > now_us);
        }
        if self.windows.len() < LOG_KINDS {
            self.windows.push(Window { key, began_us: now_us, suppressed: 0 });
            return true;
        }
        if self.others.suppressed == 0 {
            self.others.began_us = now_us;
        }
        self.others.suppressed += 1;
        self.report_us = self.report_us.min(self.others.end_us());
        false
    }

    /// The time at which `take_due` next returns a report, in microseconds; `u64::MAX` for never.
    pub fn report_us(&self) -> u64 {
        self.report_us
    }

    /// Takes the count of one window that has ended. The next line of that kind is written.
    pub fn take_due(&mut self, now_us: u64) -> Option<Suppressed<K>> {
        if now_us < self.report_us {
            return None;
        }
        let taken = self.take(now_us, |end_us| end_us <= now_us);
        if taken.is_none() {
            let others = Some(&self.others).filter(|others| others.suppressed > 0).map(Window::end_us);
            let windows = self.windows.iter().filter(|window| window.suppressed > 0).map(Window::end_us);
            self.report_us = windows.chain(others).min().unwrap_or(u64::MAX);
        }
        taken
    }

    /// Takes the count of one window, even if it has not ended.
    pub fn take_any(&mut self, now_us: u64) -> Option<Suppressed<K>> {
        self.take(now_us, |_| true)
    }

    fn take(&mut self, now_us: u64, is_due: impl Fn(u64) -> bool) -> Option<Suppressed<K>> {
        let due = self.windows.iter().position(|window| window.suppressed > 0 && is_due(window.end_us()));
        if let Some(at) = due {
            let window = self.windows.swap_remove(at);
            let window_us = now_us.saturating_sub(window.began_us);
            return Some(Suppressed { key: Some(window.key), count: window.suppressed, window_us });
        }
        if self.others.suppressed == 0 || !is_due(self.others.end_us()) {
            return None;
        }
        let count = std::mem::take(&mut self.others.suppressed);
        Some(Suppressed { key: None, count, window_us: now_us.saturating_sub(self.others.began_us) })
    }
}

impl<K: Copy + PartialEq> Default for Repeats<K> {
    fn default() -> Self {
        Repeats::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays lines of kinds at times. Returns the number of lines written, and the counts reported.
    fn played(lines: &[(u64, u32)], until_us: u64) -> (usize, Vec<Suppressed<u32>>) {
        let (mut repeats, mut written, mut reported) = (Repeats::new(), 0, Vec::new());
        let mut lines = lines.iter().peekable();
        loop {
            let line_us = lines.peek().map_or(u64::MAX, |line| line.0);
            let now_us = line_us.min(repeats.report_us());
            if now_us > until_us {
                return (written, reported);
            }
            reported.extend(std::iter::from_fn(|| repeats.take_due(now_us)));
            if line_us == now_us
                && let Some((_, key)) = lines.next()
            {
                written += usize::from(repeats.admits(*key, now_us));
            }
        }
    }

    #[test]
    fn a_line_now_and_then_is_always_written() {
        let lines: Vec<_> = (0..10).map(|n| (n * LOG_WINDOW_US, 1)).collect();
        assert_eq!(played(&lines, u64::MAX - 1), (10, Vec::new()));
    }

    #[test]
    fn a_storm_is_one_line_and_one_count_in_each_window() {
        let lines: Vec<_> = (0..3000).map(|n| (n * 1000, 1)).collect();
        let (written, reported) = played(&lines, u64::MAX - 1);
        assert_eq!((written, reported.len()), (3, 3), "{reported:?}");
        assert!(reported.iter().all(|one| (one.key, one.count) == (Some(1), 999)), "{reported:?}");
        assert_eq!(reported[0].window_us, LOG_WINDOW_US);
    }

    #[test]
    fn kinds_do_not_hide_each_other() {
        let lines: Vec<_> = (0..100).map(|n| (n, n as u32 % 10)).collect();
        let (written, reported) = played(&lines, u64::MAX - 1);
        assert_eq!((written, reported.len()), (10, 10));
        assert!(reported.iter().all(|one| one.count == 9));
    }

    #[test]
    fn every_line_is_written_or_counted_for_any_number_of_kinds() {
        let kinds = LOG_KINDS as u32 * 4;
        let lines: Vec<_> = (0..u64::from(kinds) * 3).map(|n| (n, n as u32 % kinds)).collect();
        let (written, reported) = played(&lines, u64::MAX - 1);
        let counted: u64 = reported.iter().map(|one| one.count).sum();
        assert_eq!(written as u64 + counted, lines.len() as u64);
        assert_eq!(written, LOG_KINDS);
        assert_eq!(reported.iter().filter(|one| one.key.is_none()).count(), 1);
        // Windows that have ended free their places.
        let later: Vec<_> = (0..kinds).map(|key| (u64::from(key) * LOG_WINDOW_US, key)).collect();
        assert_eq!(played(&later, u64::MAX - 1).0, kinds as usize);
    }

    #[test]
    fn a_count_that_is_not_reported_yet_is_not_lost_when_room_is_made() {
        let mut repeats = Repeats::new();
        (0..LOG_KINDS).for_each(|key| assert!(repeats.admits(key, 0)));
        assert!(!repeats.admits(0, 1));
        let now_us = 2 * LOG_WINDOW_US;
        assert!(repeats.admits(LOG_KINDS, now_us));
        let due = repeats.take_due(now_us);
        assert_eq!(due, Some(Suppressed { key: Some(0), count: 1, window_us: now_us }));
    }

    #[test]
    fn a_late_report_counts_all_lines_before_it() {
        let mut repeats = Repeats::new();
        assert!(repeats.admits(1, 0) && !repeats.admits(1, 1) && !repeats.admits(1, 3 * LOG_WINDOW_US));
        let due = repeats.take_due(3 * LOG_WINDOW_US);
        assert_eq!(due, Some(Suppressed { key: Some(1), count: 2, window_us: 3 * LOG_WINDOW_US }));
        assert_eq!(repeats.take_due(u64::MAX - 1), None);
        assert_eq!(repeats.report_us(), u64::MAX);
    }

    #[test]
    fn the_last_counts_are_taken_before_their_time() {
        let mut repeats = Repeats::new();
        assert!(repeats.admits(1, 0) && !repeats.admits(1, 1) && repeats.admits(2, 2));
        assert_eq!(repeats.take_due(10), None);
        assert_eq!(repeats.take_any(10).map(|one| one.count), Some(1));
        assert_eq!(repeats.take_any(10), None);
    }
}
