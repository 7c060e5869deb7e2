//! The number of frames of each kind that a connection has received, for the log.

use std::fmt;

use super::frame::Kind;

/// The kinds with their names in RFC 9113, 6, in the order of their numbers.
const NAMES: [&str; 11] = [
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
    "unknown",
];

/// Counts of frames by kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally([u32; NAMES.len()]);

impl Tally {
    /// Counts a frame.
    pub(super) fn add(&mut self, kind: Kind) {
        if let Some(count) = self.0.get_mut(kind as usize) {
            *count = count.saturating_add(1);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut mark = "";
        for (count, name) in self.0.iter().zip(NAMES).filter(|(count, _)| **count > 0) {
            write!(f, "{mark}{count} {name}")?;
            mark = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kinds_that_arrived_are_shown() {
        let mut tally = Tally::default();
        assert_eq!(tally.to_string(), "");
        [Kind::Ping, Kind::Data, Kind::Ping, Kind::Unknown].into_iter().for_each(|kind| tally.add(kind));
        assert_eq!(tally.to_string(), "1 DATA, 2 PING, 1 unknown");
    }
}
