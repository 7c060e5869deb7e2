//! Picks the backends in rotation, over all workers together. See [`super::super::rotation`] for the order.

use super::View;

pub(super) fn pick(view: &mut View<'_>) -> u16 {
    view.rotation.at(view.rotation.rotated(view.ticket()))
}
