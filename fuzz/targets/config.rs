//! The configuration file: any bytes are read, or refused with errors that each fit on a line; what is
//! accepted resolves, or is refused, and its plan survives the way to the workers.

use zzz_lb::args::Options;
use zzz_lb::config::{self, Config, Member, Plan, file};
use zzz_lb::limits::{BACKENDS, FILE_PROBLEMS};

/// Panics if an error cannot be shown, or a plan changes on its way.
pub fn run(data: &[u8]) {
    run_with(data, |_| {});
}

/// The same, with something done to the plan's bytes on their way.
pub fn run_with(data: &[u8], plant: fn(&mut Vec<u8>)) {
    match file::read(data, "lb.json", Options::default()) {
        Ok(options) => match config::resolve(options) {
            Ok(config) => check(&config, plant),
            Err(errors) => are_shown(&errors),
        },
        Err(errors) => are_shown(&errors),
    }
}

/// Errors are some, not too many, and one line of ASCII control characters' absence each.
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
