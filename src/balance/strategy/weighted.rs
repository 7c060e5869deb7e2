//! In turn by weight, interleaved, over all workers together.
//!
//! The shares lie side by side on a ring as long as the sum of weights, and each pick goes on by a
//! step near the golden section of it. As the step and the length have no common divisor, a cycle
//! of as many picks meets every point once, so that it is exact; and such steps fall far from
//! where the last ones fell, so that a heavy backend's picks lie between the others'.

use super::View;

pub(super) fn pick(view: &mut View<'_>) -> u16 {
    let (total, step) = (view.turns.total(), view.turns.step());
    // Both are below the sum of 1,024 weights of 16 bits, so that the product is no overflow.
    view.turns.by_share(view.cells.ticket() % total * step % total)
}
