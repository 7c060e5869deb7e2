//! Picks by a hash of the request: weighted rendezvous hashing. Every backend gets a score from the request's hash and
//! its own identity, and the best score wins. So a request has an order of all backends that no state decides, and that
//! is the same on every machine. If a backend leaves, only its own requests move, and each of them to the next backend
//! of its order.
//!
//! A request without a hash is picked by turn.

use super::super::rotation::Rotation;
use super::super::rules::identity_of;
use crate::collections::random::Random;
use crate::limits::HASH_BUCKETS;

/// Returns the bucket of a hash. Requests of one bucket have the same order of backends.
pub(in crate::balance) fn bucket(hash: u64) -> u64 {
    hash / (u64::MAX / HASH_BUCKETS as u64 + 1)
}

/// Returns the turn whose backend has the best score among those that are accepted.
pub(in crate::balance) fn best(
    rotation: &Rotation,
    identities: &[u64],
    bucket: u64,
    accepts: impl Fn(usize) -> bool,
) -> Option<usize> {
    let mut best = None;
    // The score is -ln(u) / weight for a number u between 0 and 1: the lowest one belongs to each backend with a
    // probability in proportion to its weight.
    let mut lowest = f64::INFINITY;
    for turn in 0..rotation.len() {
        let identity = identity_of(identities, rotation.at(turn));
        let random = Random::new(identity ^ bucket.wrapping_mul(0x9e37_79b9_7f4a_7c15)).any();
        let u = ((random >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
        let weight = rotation.weight(turn) as f64;
        // 1 - u is never above -ln(u), so most scores need no logarithm.
        if 1.0 - u < lowest * weight {
            let score = -u.ln() / weight;
            if score < lowest && accepts(turn) {
                (lowest, best) = (score, Some(turn));
            }
        }
    }
    best
}
