//! The less busy of two backends picked at random: nearly as even as asking all of them, at a
//! cost that does not grow with their number.

use super::super::Slot;
use crate::collections::random::Random;

pub(super) fn pick(slots: &[Slot], random: &mut Random) -> Option<usize> {
    let count = slots.len() as u64;
    if count < 2 {
        return (count == 1).then_some(0);
    }
    let one = random.below(count);
    // Any but the first, each as likely.
    let two = (one + 1 + random.below(count - 1)) % count;
    let (one, two) = (one as usize, two as usize);
    // Compares (in_flight + 1) / weight without dividing: the request to come counts too.
    let load = |slot: &Slot, other: &Slot| (u64::from(slot.in_flight) + 1) * u64::from(other.weight);
    let (a, b) = (&slots[one], &slots[two]);
    Some(if load(a, b) <= load(b, a) { one } else { two })
}
