//! The less busy, for its weight, of two backends picked at random: nearly as even as asking all
//! of them, at a cost that does not grow with their number.

use super::View;

pub(super) fn pick(view: &mut View<'_>) -> u16 {
    let count = view.turns.len() as u64;
    let one = view.random.below(count);
    if count < 2 {
        return view.turns.at(one as usize);
    }
    // Any but the first, each as likely.
    let two = (one + 1 + view.random.below(count - 1)) % count;
    let (one, two) = (one as usize, two as usize);
    // Compares (in_flight + 1) / weight without dividing: the request to come counts too.
    let load =
        |turn: usize, other: usize| (view.cells.in_flight(view.turns.at(turn).into()) + 1) * view.turns.weight(other);
    view.turns.at(if load(one, two) <= load(two, one) { one } else { two })
}
