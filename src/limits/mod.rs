//! Every limit of the program with its reason, one file per subject. Durations are in microseconds (`_US`) and
//! sizes in bytes, unless the name says otherwise. Related limits are asserted against each other at compile
//! time, at the foot of each file.

mod backends;
mod config;
mod dns;
mod http2;
mod message;
mod process;
mod tls;
mod turn;

pub use self::backends::*;
pub use self::config::*;
pub use self::dns::*;
pub use self::http2::*;
pub use self::message::*;
pub use self::process::*;
pub use self::tls::*;
pub use self::turn::*;

/// One second in microseconds, the unit of the core's clock.
pub const SECOND_US: u64 = 1_000_000;
