//! At random by weight: a number below the sum of weights falls into one backend's share.

use super::View;

pub(super) fn pick(view: &mut View<'_>) -> u16 {
    view.rotation.at(view.rotation.of_share(view.random.below(view.rotation.total())))
}
