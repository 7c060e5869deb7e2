//! Each backend in turn, over all workers together.

use super::View;

pub(super) fn pick(view: &mut View<'_>) -> u16 {
    view.turns.at((view.cells.ticket() % view.turns.len() as u64) as usize)
}
