//! Each backend in turn, by weight, over all workers together. See [`super::super::turns`] for the order.

use super::View;

pub(super) fn pick(view: &mut View<'_>) -> u16 {
    view.turns.at(view.turns.rotated(view.cells.ticket()))
}
