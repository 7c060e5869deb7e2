//! The handover from one program to the next, in the environment, in both forms. Any text is parsed or refused, and an
//! accepted one means the same after it is written and parsed again. Also the variables with which a service
//! manager passes listeners on: a number above the limit, or for another process, is refused.
//!
//! The input is parsed as one line of the handover, and as two lines of the variables.

use zzz_lb::limits::ACTIVATED_LISTENERS;
use zzz_lb::process::service::activation;
use zzz_lb::process::upgrade::handover::Handover;

/// Our process id, for LISTEN_PID.
const OWN: i32 = 7;

/// Panics if a line changes its meaning, or invalid listeners are accepted.
pub fn run(data: &[u8]) {
    run_with(data, |_| {});
}

/// Like [`run`], with a fault planted in the line before it is parsed again.
pub fn run_with(data: &[u8], plant: fn(&mut String)) {
    let text = String::from_utf8_lossy(data);
    if let Some(left) = Handover::parse(&text) {
        let mut line = left.to_string();
        plant(&mut line);
        assert_eq!(Handover::parse(&line).as_ref(), Some(&left), "{line}");
        if text.starts_with("2 ") {
            let old = left.in_form_2().expect("form 2 expresses a handover that was parsed from it");
            assert_eq!(Handover::parse(&old), Some(left), "{old}");
        }
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
