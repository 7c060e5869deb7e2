//! The balancer over cells of its own: rotation, limits, health and probes.

use super::cells::private;
use super::strategy::Strategy;
use super::*;
use crate::limits::UNPROBED_US;

mod by_hash;

const RULES: Rules = Rules {
    strategy: Strategy::ALL[0],
    fails: 3,
    passes: 2,
    interval_us: 5_000_000,
    slow_start_us: 0,
    retry_percent: 20,
};

fn mine(slots: usize) -> &'static [AtomicU64] {
    Vec::leak((0..slots).map(|_| AtomicU64::new(0)).collect())
}

fn member(slot: usize, weight: u16) -> Member {
    let identity = Random::new(slot as u64).any();
    Member { slot: slot as u16, weight, backup: false, max: 0, identity }
}

fn over(cells: Cells, rules: Rules, members: &[Member], seed: u64) -> Balancer {
    let mut balancer = Balancer::new(rules, cells, mine(cells.slots()), seed);
    balancer.set(rules, members.iter().copied());
    balancer
}

fn strategy(name: &str) -> Rules {
    Rules { strategy: Strategy::named(name).unwrap(), ..RULES }
}

fn weighing(rules: Rules, weights: &[u16]) -> Balancer {
    let members: Vec<Member> = weights.iter().enumerate().map(|(slot, &weight)| member(slot, weight)).collect();
    over(private(weights.len()), rules, &members, 1)
}

fn picked(balancer: &mut Balancer) -> usize {
    match balancer.pick(Want::other_than(&[]), 1) {
        Pick::Slot(slot) => slot,
        none => panic!("{none:?}"),
    }
}

fn counts(balancer: &mut Balancer, picks: usize) -> Vec<usize> {
    let mut counts = vec![0; balancer.cells.slots()];
    for _ in 0..picks {
        let slot = picked(balancer);
        counts[slot] += 1;
        balancer.finished(slot);
    }
    counts
}

#[test]
fn another_is_one_that_was_not_tried_and_is_fit_and_has_room() {
    let members = [member(0, 1), Member { max: 1, ..member(1, 1) }, member(2, 1)];
    let mut balancer = over(private(3), RULES, &members, 1);
    assert!(matches!(balancer.pick(Want::other_than(&[0, 2]), 1), Pick::Slot(1)));
    assert!(balancer.has_other(0, &[0]) && !balancer.has_other(0, &[0, 2]));
    balancer.finished(1);
    assert!(balancer.has_other(0, &[0, 2]) && !balancer.has_other(0, &[0, 1, 2]));
    for _ in 0..RULES.fails {
        balancer.failed(2, 1);
    }
    assert!(!balancer.has_other(0, &[0, 1]));
}

#[test]
fn round_robin_is_exact_by_weight_and_weighted_is_another_name_for_it() {
    for name in ["round_robin", "weighted"] {
        assert_eq!(counts(&mut weighing(strategy(name), &[1, 1, 1]), 300), [100, 100, 100]);
        assert_eq!(counts(&mut weighing(strategy(name), &[1, 2, 5]), 800), [100, 200, 500]);
        assert_eq!(counts(&mut weighing(strategy(name), &[65_535, 1]), 65_536), [65_535, 1]);
    }
    assert_eq!(strategy("weighted"), RULES);
    let mut balancer = weighing(RULES, &[5, 1]);
    let picks: Vec<usize> = (0..12).map(|_| picked(&mut balancer)).collect();
    assert_eq!(picks, [0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0]);
}

#[test]
fn turns_are_those_of_all_workers_together() {
    for (name, weights, wanted) in
        [("round_robin", [1, 1, 1], [100, 100, 100]), ("round_robin", [1, 2, 3], [50, 100, 150])]
    {
        let cells = private(3);
        let members: Vec<Member> = (0..3).map(|slot| member(slot, weights[slot])).collect();
        let mut workers: Vec<Balancer> = (0..4).map(|seed| over(cells, strategy(name), &members, seed)).collect();
        let mut counts = [0; 3];
        let mut random = Random::new(7);
        for _ in 0..300 {
            counts[picked(&mut workers[random.below(4) as usize])] += 1;
        }
        assert_eq!(counts, wanted, "{name}");
    }
}

#[test]
fn round_robin_interleaves() {
    let mut balancer = weighing(RULES, &[5, 1, 1]);
    let picks: Vec<usize> = (0..70).map(|_| picked(&mut balancer)).collect();
    assert!(!picks.windows(5).any(|run| run.iter().all(|&slot| slot == 0)), "{picks:?}");
    assert!(!picks.windows(2).any(|run| run[0] != 0 && run[1] != 0), "{picks:?}");
}

#[test]
fn random_honours_weight() {
    let weights = [1, 3, 6];
    let counts = counts(&mut weighing(strategy("random"), &weights), 100_000);
    let expected = weights.map(|weight| f64::from(weight) * 10_000.0);
    // Chi-squared with two degrees of freedom exceeds 13.8 once in a thousand runs.
    let chi: f64 = counts.iter().zip(expected).map(|(&n, e)| (n as f64 - e).powi(2) / e).sum();
    assert!(chi < 13.8, "{counts:?}");
}

#[test]
fn least_requests_prefers_the_less_busy_for_its_weight() {
    let mut balancer = weighing(strategy("least_requests"), &[1, 1, 2]);
    (0..4000).for_each(|_| _ = picked(&mut balancer));
    let busy: Vec<u64> = (0..3).map(|slot| balancer.cells.in_flight(slot)).collect();
    assert!(busy[0].abs_diff(1000) < 60 && busy[1].abs_diff(1000) < 60 && busy[2].abs_diff(2000) < 60, "{busy:?}");
}

#[test]
fn least_requests_gives_the_equally_busy_their_turns_by_weight() {
    for weights in [&[9, 1][..], &[9, 1, 1], &[1, 1, 1, 1]] {
        let mut balancer = weighing(strategy("least_requests"), weights);
        let total: u16 = weights.iter().sum();
        // Sequential requests: no backend is busy when the next one comes.
        let wanted: Vec<usize> = weights.iter().map(|&weight| usize::from(weight) * 6).collect();
        assert_eq!(counts(&mut balancer, usize::from(total) * 6), wanted);
    }
}

#[test]
fn a_tried_backend_is_not_picked_again() {
    for rules in Strategy::ALL.map(|strategy| Rules { strategy, ..RULES }) {
        let mut balancer = weighing(rules, &[1, 1, 1]);
        for _ in 0..50 {
            assert_eq!(balancer.pick(Want::other_than(&[0, 2]), 1), Pick::Slot(1));
            assert_eq!(balancer.pick(Want::other_than(&[0, 1, 2]), 1), Pick::Nobody);
        }
        assert_eq!(weighing(rules, &[]).pick(Want::other_than(&[]), 1), Pick::Nobody);
    }
}

#[test]
fn a_dead_backend_s_share_spreads_over_all_the_rest() {
    for rules in Strategy::ALL.map(|strategy| Rules { strategy, ..RULES }) {
        let mut balancer = weighing(rules, &[1, 1, 1, 1]);
        let verdicts: Vec<_> = (0..4).map(|_| balancer.failed(1, 9)).collect();
        assert_eq!(verdicts, [None, None, Some(3), None]);
        let counts = counts(&mut balancer, 9000);
        assert_eq!(counts[1], 0);
        assert!(counts.iter().all(|&n| n == 0 || n.abs_diff(3000) < 250), "{:?} {counts:?}", rules.strategy);
    }
}

#[test]
fn backups_serve_only_when_no_other_is_healthy() {
    let backup = Member { backup: true, ..member(2, 1) };
    let mut balancer = over(private(3), RULES, &[member(0, 1), member(1, 1), backup], 1);
    assert_eq!(counts(&mut balancer, 10), [5, 5, 0]);
    (0..3).for_each(|_| _ = balancer.failed(0, 9));
    assert_eq!(counts(&mut balancer, 10), [0, 10, 0]);
    // For a request whose backend has just failed, a backup is better than nothing.
    assert_eq!(balancer.pick(Want::other_than(&[1]), 9), Pick::Slot(2));
    balancer.finished(2);
    (0..3).for_each(|_| _ = balancer.failed(1, 9));
    assert_eq!(counts(&mut balancer, 10), [0, 0, 10]);
    assert_eq!((balancer.is_open(0), balancer.take_news()), (false, None));
}

#[test]
fn with_none_healthy_all_are_tried_and_that_is_told_once() {
    let cells = private(2);
    let members = [member(0, 1), member(1, 1)];
    let (mut one, mut two) = (over(cells, RULES, &members, 1), over(cells, RULES, &members, 2));
    for slot in [0, 1] {
        (0..3).for_each(|_| _ = one.failed(slot, 9));
    }
    assert_eq!(counts(&mut one, 10), [5, 5]);
    assert_eq!(counts(&mut two, 10), [5, 5]);
    assert!(one.is_open(0) && two.is_open(0));
    assert_eq!((one.take_news(), two.take_news()), (Some((0, true)), None));
    assert_eq!((two.probed(0, true, 10), two.probed(0, true, 10)), (None, Some(Change::Up(2))));
    assert_eq!(counts(&mut two, 10), [10, 0]);
    assert_eq!((two.take_news(), one.take_news()), (Some((0, false)), None));
}

#[test]
fn one_that_is_added_serves_when_a_probe_has_passed_or_nobody_else_is_up() {
    let cells = private(3);
    let mut balancer = over(cells, RULES, &[member(0, 1), member(1, 1), member(2, 1)], 1);
    for slot in [1, 2] {
        cells.clear(slot, State::Added, 0);
    }
    assert_eq!(counts(&mut balancer, 30), [30, 0, 0]);
    // A backend that failed its first probe waits for another. If that fails too, it is down.
    assert_eq!((balancer.probed(1, true, 2), balancer.probed(2, false, 2)), (None, None));
    assert_eq!((cells.state(1), cells.state(2)), (State::Healthy, State::Added));
    assert_eq!(counts(&mut balancer, 30), [15, 15, 0]);
    assert_eq!((balancer.probed(2, false, 3), balancer.probed(2, false, 4)), (None, Some(Change::Down(3))));
    // A request that has failed elsewhere goes to an added backend before it goes to one that is down.
    cells.clear(1, State::Added, 0);
    assert_eq!(balancer.pick(Want::other_than(&[0]), 5), Pick::Slot(1));
    balancer.finished(1);
    // The added backend serves when the last healthy one is down.
    (0..3).for_each(|_| _ = balancer.failed(0, 6));
    assert_eq!(counts(&mut balancer, 10), [0, 10, 0]);
    assert_eq!((cells.state(1), balancer.is_open(0)), (State::Unproven, false));
}

#[test]
fn an_added_backend_serves_at_once_without_probes() {
    let cells = private(2);
    cells.clear(1, State::Added, 0);
    let rules = Rules { interval_us: 0, ..RULES };
    assert_eq!(counts(&mut over(cells, rules, &[member(0, 1), member(1, 1)], 1), 10), [5, 5]);
}

/// Such a backend is not in the rotation, and may yet serve the request, so the request waits for room there.
#[test]
fn a_request_waits_for_the_last_backend_even_if_it_is_a_backup_or_ejected() {
    for (backup, failures) in [(true, 0), (false, 3)] {
        let members = [member(0, 1), Member { backup, max: 1, ..member(1, 1) }];
        let mut balancer = over(private(2), RULES, &members, 1);
        (0..failures).for_each(|_| _ = balancer.failed(1, 9));
        assert_eq!(balancer.pick(Want::other_than(&[0]), 9), Pick::Slot(1), "{backup}");
        assert_eq!(balancer.pick(Want::other_than(&[0]), 9), Pick::Full, "{backup}");
        balancer.finished(1);
        assert_eq!(balancer.pick(Want::other_than(&[0]), 9), Pick::Slot(1), "{backup}");
        assert_eq!(balancer.pick(Want::other_than(&[0, 1]), 9), Pick::Nobody, "{backup}");
    }
}

#[test]
fn a_backend_at_its_limit_is_passed_over_by_all_workers() {
    let cells = private(2);
    let members = [Member { max: 2, ..member(0, 1) }, Member { max: 3, ..member(1, 1) }];
    let mut workers = [over(cells, RULES, &members, 1), over(cells, RULES, &members, 2)];
    let picks: Vec<Pick> = (0..6).map(|n| workers[n % 2].pick(Want::other_than(&[]), 1)).collect();
    assert_eq!(picks[5], Pick::Full);
    assert_eq!((cells.in_flight(0), cells.in_flight(1)), (2, 3));
    let Pick::Slot(slot) = picks[0] else { panic!("{picks:?}") };
    workers[0].finished(slot);
    assert_eq!(workers[1].pick(Want::other_than(&[]), 1), Pick::Slot(slot));
}

#[test]
fn a_backend_that_came_back_starts_slowly() {
    let rules = Rules { slow_start_us: 1_000_000, ..RULES };
    let mut balancer = weighing(rules, &[1, 1]);
    (0..3).for_each(|_| _ = balancer.failed(0, 9));
    (0..2).for_each(|_| _ = balancer.probed(0, true, 5_000_000));
    let mut share = |now_us| {
        let picks = (0..10_000).filter(|_| balancer.pick(Want::other_than(&[]), now_us) == Pick::Slot(0));
        picks.count()
    };
    let shares = [5_000_000, 5_500_000, 6_000_001].map(&mut share);
    assert!(shares[0] > 300 && shares[0] < 1200, "{shares:?}");
    assert!(shares[1] > 2500 && shares[1] < 4000, "{shares:?}");
    assert_eq!(shares[2], 5000);
}

/// The number of 10,000 requests, 8 of them in flight at once, that the backends below `slow` get at that time.
/// These backends were restored at 5 s and slow-start for a second.
fn share_of_slow(name: &str, slow: usize, count: usize, now_us: u64) -> f64 {
    let rules = Rules { slow_start_us: 1_000_000, ..strategy(name) };
    let mut balancer = weighing(rules, &vec![1; count]);
    for slot in 0..slow {
        (0..3).for_each(|_| _ = balancer.failed(slot, 9));
        (0..2).for_each(|_| _ = balancer.probed(slot, true, 5_000_000));
    }
    let (mut in_flight, mut got) = (std::collections::VecDeque::new(), 0);
    for _ in 0..10_000 {
        let Pick::Slot(slot) = balancer.pick(Want::other_than(&[]), now_us) else { panic!("{name}: nobody") };
        got += usize::from(slot < slow);
        in_flight.push_back(slot);
        if in_flight.len() == 8 {
            in_flight.drain(..1).for_each(|slot| balancer.finished(slot));
        }
    }
    got as f64 / 10_000.0
}

#[test]
fn slow_start_is_slow_with_every_strategy() {
    for (name, _) in Strategy::NAMES {
        let shares = [5_000_000, 5_300_000, 6_000_001].map(|now_us| share_of_slow(name, 1, 2, now_us));
        assert!(shares[0] > 0.03 && shares[0] < 0.12, "{name}: {shares:?}");
        assert!(shares[1] > 0.1 && shares[1] < 0.32, "{name}: {shares:?}");
        assert!(shares[2] > 0.45 && shares[2] < 0.55, "{name}: {shares:?}");
        // Each has a tenth of its share: together they would have 0.9 of 1.9.
        let most = share_of_slow(name, 9, 10, 5_000_000);
        assert!(most > 0.2 && most < 0.55, "{name}: {most}");
        // If all start slowly, there is no other backend.
        assert!(share_of_slow(name, 10, 10, 5_000_000) == 1.0, "{name}");
    }
}

#[test]
fn one_worker_probes_a_backend_in_an_interval_and_another_takes_over() {
    let cells = private(2);
    let members = [member(0, 1), member(1, 1)];
    let mut workers = [over(cells, RULES, &members, 1), over(cells, RULES, &members, 2)];
    (0..2).for_each(|slot| cells.clear(slot, State::Unproven, 1_000_000));
    let mut taken: Vec<(u64, usize)> = Vec::new();
    for now_us in (0..60_000_000).step_by(1000) {
        // The first worker is dead from 30 s on.
        let alive = if now_us < 30_000_000 { 0 } else { 1 };
        for worker in &mut workers[alive..] {
            let mut slots = Vec::new();
            worker.take_probes(now_us, &mut slots);
            taken.extend(slots.into_iter().map(|slot| (now_us, slot)));
        }
    }
    for slot in [0, 1] {
        let times: Vec<u64> = taken.iter().filter(|(_, of)| *of == slot).map(|(at, _)| *at).collect();
        let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(times.len() >= 12 && times[0] < 1_100_000, "{times:?}");
        assert!(gaps.iter().all(|gap| (4_400_000..5_100_000).contains(gap)), "{gaps:?}");
    }
}

#[test]
fn one_of_weight_0_gets_nothing_new_whatever_becomes_of_the_others() {
    for name in ["round_robin", "weighted", "random", "least_requests"] {
        let rules = strategy(name);
        let members = [member(0, 1), member(1, 0), Member { backup: true, ..member(2, 0) }];
        let mut balancer = over(private(3), rules, &members, 1);
        assert_eq!(counts(&mut balancer, 100), [100, 0, 0], "{name}");
        assert!(matches!(balancer.pick(Want::other_than(&[0]), 1), Pick::Nobody), "{name}: a retry has nobody else");
        // All are down, so all are tried.
        (0..3).for_each(|slot| _ = (0..3).map(|_| balancer.failed(slot, 1)).count());
        assert_eq!(counts(&mut balancer, 100), [100, 0, 0], "{name}");
        balancer.set(rules, [member(0, 0), member(1, 0)].into_iter());
        assert!(matches!(balancer.pick(Want::other_than(&[]), 1), Pick::Nobody), "{name}");
        assert!(!balancer.is_open(0), "{name}: that is no outage");
        // Its probes continue, so its health is known when its weight returns.
        let mut probes = Vec::new();
        balancer.take_probes(10_000_000, &mut probes);
        assert_eq!(probes, [0, 1], "{name}");
    }
}

#[test]
fn without_probes_a_backend_that_is_down_gets_another_chance() {
    let rules = Rules { interval_us: 0, ..RULES };
    let mut balancer = weighing(rules, &[1, 1]);
    (0..3).for_each(|_| _ = balancer.failed(0, 1));
    assert_eq!(counts(&mut balancer, 10), [0, 10]);
    assert_eq!(balancer.next_probe_us(), 1 + UNPROBED_US);
    let mut taken = Vec::new();
    balancer.take_probes(1 + UNPROBED_US, &mut taken);
    assert_eq!((taken.len(), counts(&mut balancer, 10)), (0, vec![5, 5]));
    assert_eq!(balancer.next_probe_us(), u64::MAX);
    assert_eq!(balancer.failed(0, 2 * UNPROBED_US), Some(3));
}

#[test]
fn one_that_gets_another_chance_starts_slowly() {
    let rules = Rules { interval_us: 0, slow_start_us: 1_000_000, ..RULES };
    let mut balancer = weighing(rules, &[1, 1]);
    (0..3).for_each(|_| _ = balancer.failed(0, 1));
    let back_us = 1 + UNPROBED_US;
    balancer.take_probes(back_us, &mut Vec::new());
    let mut share =
        |now_us| (0..10_000).filter(|_| balancer.pick(Want::other_than(&[]), now_us) == Pick::Slot(0)).count();
    let shares = [back_us, back_us + 1_000_001].map(&mut share);
    assert!(shares[0] > 300 && shares[0] < 1200, "{shares:?}");
    assert_eq!(shares[1], 5000);
}

#[test]
fn requests_that_a_probe_contradicts_do_not_hide_it() {
    let mut balancer = weighing(RULES, &[1, 1]);
    assert_eq!(balancer.probed(0, false, 1), None);
    balancer.succeeded(0);
    assert_eq!(balancer.probed(0, false, 1), None);
    assert_eq!(balancer.probed(0, false, 1), Some(Change::Down(3)));
    balancer.succeeded(0);
    assert_eq!(balancer.cells.state(0), State::Down);
}
