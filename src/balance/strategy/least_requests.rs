//! Picks the less busy of two backends, relative to their weights. This is nearly as even as a look at all backends,
//! and its cost does not grow with their number. The first one comes in rotation. The second one is any other, and
//! wins only if it is less busy. So equally busy backends get requests by their weights.

use super::View;

pub(super) fn pick(view: &mut View<'_>) -> u16 {
    let rotation = view.rotation;
    let one = rotation.rotated(view.ticket());
    let count = rotation.len() as u64;
    if count < 2 {
        return rotation.at(one);
    }
    // Any backend except the first, with equal probability.
    let two = ((one as u64 + 1 + view.random.below(count - 1)) % count) as usize;
    // This compares in_flight / weight without a division.
    let load = |turn: usize, other: usize| view.cells.in_flight(rotation.at(turn).into()) * rotation.weight(other);
    rotation.at(if load(two, one) < load(one, two) { two } else { one })
}
