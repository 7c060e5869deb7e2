//! Picks by hash: the same backend for the same hash, as few moves as possible, and the bound of the load.

use super::*;
use crate::limits::{HASH_FLOOR, HASH_SCANNED};

const KEYS: u64 = 40_000;

fn by_hash() -> Rules {
    strategy("hash")
}

/// The hash of a key.
fn hash(key: u64) -> u64 {
    Random::new(key ^ 0x5eed).any()
}

fn want(key: u64, tried: &[u16]) -> Want<'_> {
    Want { hash: Some(hash(key)), ..Want::other_than(tried) }
}

/// Returns the slot for a key while nothing is in flight.
fn owner(balancer: &mut Balancer, key: u64) -> usize {
    match balancer.pick(want(key, &[]), 1) {
        Pick::Slot(slot) => {
            balancer.finished(slot);
            slot
        }
        none => panic!("{none:?}"),
    }
}

fn owners(balancer: &mut Balancer) -> Vec<usize> {
    (0..KEYS).map(|key| owner(balancer, key)).collect()
}

fn take_down(balancer: &mut Balancer, slot: usize) {
    (0..RULES.fails).for_each(|_| _ = balancer.failed(slot, 1));
}

#[test]
fn a_backend_that_leaves_moves_only_its_own_keys() {
    for count in [10, HASH_SCANNED + 44] {
        let mut balancer = weighing(by_hash(), &vec![1; count]);
        let before = owners(&mut balancer);
        let members: Vec<Member> = (0..count).filter(|&slot| slot != 3).map(|slot| member(slot, 1)).collect();
        balancer.set(by_hash(), members.into_iter());
        let after = owners(&mut balancer);
        let had_to = before.iter().filter(|&&slot| slot == 3).count();
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!(had_to > 0 && moved >= had_to, "{count}: {moved} {had_to}");
        assert!(moved <= had_to + KEYS as usize / 200, "{count}: {moved} of {KEYS} keys have moved, {had_to} had to");
        // And each of them is where it was when the backend is back.
        balancer.set(by_hash(), (0..count).map(|slot| member(slot, 1)));
        assert_eq!(owners(&mut balancer), before);
    }
}

#[test]
fn keys_are_spread_by_weight() {
    let mut balancer = weighing(by_hash(), &[1; 10]);
    let mut counts = [0_usize; 10];
    owners(&mut balancer).into_iter().for_each(|slot| counts[slot] += 1);
    assert!(counts.iter().all(|&count| (3_700..4_300).contains(&count)), "{counts:?}");
    let mut counts = [0_usize; 3];
    owners(&mut weighing(by_hash(), &[1, 2, 5])).into_iter().for_each(|slot| counts[slot] += 1);
    for (count, weight) in counts.into_iter().zip([1, 2, 5]) {
        assert!(count.abs_diff(5_000 * weight) < 500, "{counts:?}");
    }
}

#[test]
fn slots_and_order_of_the_backends_have_no_meaning() {
    let mut one = weighing(by_hash(), &[1, 2, 3, 4]);
    // The same backends in other slots, as on another machine.
    let members: Vec<Member> =
        (0..4).map(|slot| Member { slot: 3 - slot as u16, ..member(slot, slot as u16 + 1) }).collect();
    let mut other = over(private(4), by_hash(), &members, 9);
    assert!((0..1000).all(|key| owner(&mut one, key) == 3 - owner(&mut other, key)));
}

#[test]
fn the_next_backend_of_a_key_is_the_same_for_each_reason() {
    for count in [5, HASH_SCANNED + 1] {
        let mut balancer = weighing(by_hash(), &vec![1; count]);
        for key in 0..20 {
            let first = owner(&mut balancer, key);
            let Pick::Slot(second) = balancer.pick(want(key, &[first as u16]), 1) else { panic!("there are others") };
            balancer.finished(second);
            assert_ne!(first, second);
            take_down(&mut balancer, first);
            assert_eq!(owner(&mut balancer, key), second);
            balancer.cells.bring_up(first, 2);
            assert_eq!(owner(&mut balancer, key), first);
            // A busy backend that is above the bound keeps its other requests.
            let busy: Vec<usize> = (0..3)
                .map(|_| match balancer.pick(want(key, &[]), 1) {
                    Pick::Slot(slot) => slot,
                    none => panic!("{none:?}"),
                })
                .collect();
            assert_eq!(busy, [first, first, second], "{key}");
            busy.into_iter().for_each(|slot| balancer.finished(slot));
        }
    }
}

#[test]
fn no_backend_has_much_more_than_the_mean_load() {
    for weights in [&[1, 1, 1, 1][..], &[1, 2, 5], &vec![1; HASH_SCANNED + 1]] {
        let mut balancer = weighing(by_hash(), weights);
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        // One key, and so one owner, has all the load.
        for load in 1..=20 * total {
            assert!(matches!(balancer.pick(want(7, &[]), load), Pick::Slot(_)));
            for (slot, &weight) in weights.iter().enumerate() {
                let own = balancer.cells.in_flight(slot);
                // It accepts a request if it is below the bound, so it exceeds it by less than one request.
                let is_below = own * 4 * total < 5 * load * u64::from(weight) + 4 * total;
                assert!(own <= HASH_FLOOR || is_below, "{slot} has {own} of {load}");
            }
        }
        let own = owner(&mut balancer, 7);
        assert!(balancer.cells.in_flight(own) >= 20 * u64::from(weights[own]), "the owner has at least its share");
    }
}

#[test]
fn a_full_backend_is_passed_over_and_if_all_are_full_the_request_waits() {
    let members: Vec<Member> = (0..8).map(|slot| Member { max: 1, ..member(slot, 1) }).collect();
    let mut balancer = over(private(8), by_hash(), &members, 1);
    let mut slots: Vec<usize> = (0..8)
        .map(|_| match balancer.pick(want(7, &[]), 1) {
            Pick::Slot(slot) => slot,
            none => panic!("{none:?}"),
        })
        .collect();
    slots.sort_unstable();
    assert_eq!(slots, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(balancer.pick(want(7, &[]), 1), Pick::Full);
}

#[test]
fn a_request_without_a_hash_is_picked_by_turn() {
    assert_eq!(counts(&mut weighing(by_hash(), &[1, 2, 5]), 800), [100, 200, 500]);
}

#[test]
fn a_backend_in_slow_start_gets_a_growing_share_of_its_keys() {
    let rules = Rules { slow_start_us: 1000, ..by_hash() };
    let mut balancer = weighing(rules, &[1, 1]);
    let key = (0..100).find(|&key| owner(&mut balancer, key) == 0).unwrap();
    take_down(&mut balancer, 0);
    balancer.cells.bring_up(0, 1000);
    let share = |balancer: &mut Balancer, now_us| {
        let picks = (0..1000).filter(|_| match balancer.pick(want(key, &[]), now_us) {
            Pick::Slot(slot) => {
                balancer.finished(slot);
                slot == 0
            }
            _ => false,
        });
        picks.count()
    };
    let shares = [1000, 1500, 2001].map(|now_us| share(&mut balancer, now_us));
    assert!((50..150).contains(&shares[0]) && (400..600).contains(&shares[1]) && shares[2] == 1000, "{shares:?}");
}

#[test]
fn the_table_of_many_backends_follows_their_health() {
    let count = HASH_SCANNED + 1;
    let mut balancer = weighing(by_hash(), &vec![1; count]);
    let before: Vec<usize> = (0..2000).map(|key| owner(&mut balancer, key)).collect();
    take_down(&mut balancer, before[0]);
    for (key, &slot) in (0..).zip(&before) {
        let now = owner(&mut balancer, key);
        assert_eq!(now == slot, slot != before[0], "{key}");
    }
    // With one backend less there is no table, and nothing else has moved.
    balancer.set(by_hash(), (0..count).filter(|&slot| slot != before[0]).map(|slot| member(slot, 1)));
    balancer.cells.bring_up(before[0], 1);
    assert!((0..).zip(&before).all(|(key, &slot)| slot == before[0] || owner(&mut balancer, key) == slot));
}
