//! What one program leaves to the next one in its environment: any text is read or refused, and what is
//! accepted says the same when it is written and read again. And the variables by which a service manager
//! passes listeners on: no number beyond the limit is accepted, nor one for another process.
//!
//! The input is read as a line of the one, and as two lines of the other.

use zzz_lb::limits::ACTIVATED_LISTENERS;
use zzz_lb::process::service::activation;
use zzz_lb::process::upgrade::handover::Handover;

/// Our number, to be meant by LISTEN_PID.
const OWN: i32 = 7;

/// Panics if a line changes its meaning, or listeners are taken that cannot be.
pub fn run(data: &[u8]) {
    run_with(data, |_| {});
}

/// The same, with something done to the line before it is read again.
pub fn run_with(data: &[u8], plant: fn(&mut String)) {
    let text = String::from_utf8_lossy(data);
    if let Some(left) = Handover::parse(&text) {
        let mut line = left.to_string();
        plant(&mut line);
        assert_eq!(Handover::parse(&line), Some(left), "{line}");
    }
    let (fds, pid) = text.split_once('\n').unwrap_or((&text, "7"));
    match activation::passed(fds, pid, OWN) {
        Ok(0) => {}
        Ok(passed) => {
            assert!((1..=ACTIVATED_LISTENERS).contains(&passed), "{passed} descriptors");
            assert_eq!((pid.parse(), fds.parse()), (Ok(OWN), Ok(passed)));
        }
        Err(text) => assert!(text.starts_with("LISTEN_FDS") && !text.contains(char::is_control), "{text:?}"),
    }
}
