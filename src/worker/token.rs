//! The tokens under which a worker polls its descriptors. A connection has the token of its key, whose generation is
//! never 0: such a token is larger than these.

pub(super) const SIGNALS: u64 = 1;
pub(super) const COMPANION: u64 = 2;
/// The token of the first listener. Those of its other listeners follow, then those of other workers.
pub(super) const LISTENERS: u64 = 3;
