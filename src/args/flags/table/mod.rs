//! The table of options, one file for each heading of `--help`.

mod backends;
mod configuration;
mod forwarding;
mod health;
mod listening;
mod log;
mod processes;
mod time;
mod tls;

use super::Flag;

/// The groups, in the order of `--help`.
const GROUPS: [&[Flag]; 9] = [
    listening::FLAGS,
    tls::FLAGS,
    backends::FLAGS,
    health::FLAGS,
    forwarding::FLAGS,
    time::FLAGS,
    processes::FLAGS,
    log::FLAGS,
    configuration::FLAGS,
];

const COUNT: usize = {
    let mut count = 0;
    let mut group = 0;
    while group < GROUPS.len() {
        count += GROUPS[group].len();
        group += 1;
    }
    count
};

static ALL: [Flag; COUNT] = {
    let mut all = [GROUPS[0][0]; COUNT];
    let (mut group, mut filled) = (0, 0);
    while group < GROUPS.len() {
        let mut entry = 0;
        while entry < GROUPS[group].len() {
            all[filled] = GROUPS[group][entry];
            filled += 1;
            entry += 1;
        }
        group += 1;
    }
    all
};

/// All options.
pub static FLAGS: &[Flag] = &ALL;

pub(super) const DURATIONS: &str = "1ms to 24h, such as 500ms, 2s, 1m or 1h";
pub(super) const DURATIONS_OR_OFF: &str = "1ms to 24h, such as 500ms, 2s, 1m or 1h; or off";
