//! The configuration file. Any bytes are parsed, or refused with errors of one line each. An accepted file
//! resolves or is refused, and its plan survives the way to the workers.

use zzz_lb::args::Options;
use zzz_lb::config::{self, Config, Member, Plan, file};
use zzz_lb::limits::{BACKENDS, FILE_PROBLEMS};

/// Panics if an error does not fit on a line, or if a plan changes on its way.
pub fn run(data: &[u8]) {
    run_with(data, |_| {});
}

/// Like [`run`], with a fault planted in the plan's bytes.
pub fn run_with(data: &[u8], plant: fn(&mut Vec<u8>)) {
    match file::read(data, "lb.json", Options::default()) {
        Ok(options) => match config::resolve(options) {
            Ok(config) => check(&config, plant),
            Err(errors) => are_shown(&errors),
        },
        Err(errors) => are_shown(&errors),
    }
}

/// Checks that the errors are not empty, not too many, and without control characters.
fn are_shown(errors: &[impl ToString]) {
    assert!(!errors.is_empty() && errors.len() <= FILE_PROBLEMS + 1, "{} errors", errors.len());
    for error in errors {
        let text = error.to_string();
        assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
    }
}

fn check(config: &Config, plant: fn(&mut Vec<u8>)) {
    assert!(config.backends.len() <= BACKENDS);
    let member = |(slot, backend): (usize, &config::Backend)| {
        Some(Member { slot: slot as u16, ..Member::new(backend, backend.address()?, true) })
    };
    let members = config.backends.iter().enumerate().filter_map(member).collect();
    let plan = Plan::new(config, 1, members, vec!["a name".into()]);
    let mut bytes = plan.encode();
    plant(&mut bytes);
    assert_eq!(Plan::decode(&bytes), Some(plan), "a plan changes on its way to the workers");
}
