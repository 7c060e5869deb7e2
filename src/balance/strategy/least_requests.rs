//! The less busy, for its weight, of two backends: nearly as even as a look at all of them, at a cost that
//! does not grow with their number. The first comes in turn by weight, and stands unless the second, which
//! is any other, is less busy: so backends that are equally busy get requests by their weights.

use super::View;

pub(super) fn pick(view: &mut View<'_>) -> u16 {
    let rotation = view.rotation;
    let one = rotation.rotated(view.cells.ticket());
    let count = rotation.len() as u64;
    if count < 2 {
        return rotation.at(one);
    }
    // Any but the first, each as likely.
    let two = ((one as u64 + 1 + view.random.below(count - 1)) % count) as usize;
    // Compares in_flight / weight without a division.
    let load = |turn: usize, other: usize| view.cells.in_flight(rotation.at(turn).into()) * rotation.weight(other);
    rotation.at(if load(two, one) < load(one, two) { two } else { one })
}
