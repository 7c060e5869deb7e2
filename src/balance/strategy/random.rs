//! Picks at random by weight: a random number below the sum of weights falls into the share of one backend.

use super::View;

pub(super) fn pick(view: &mut View<'_>) -> u16 {
    view.rotation.at(view.rotation.of_share(view.random.below(view.rotation.total())))
}
