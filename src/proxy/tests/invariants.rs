//! `Proxy::check` notices each broken invariant.

use super::super::exchange::Upstream;
use super::super::mux::Mux;
use super::*;
use crate::collections::timers::NEVER;
use crate::limits::H2_GROWTH_BYTES;

/// A name, the state before, the fault, and a part of the complaint.
type Case = (&'static str, fn() -> World, Break, &'static str);
type Break = fn(&mut World);

/// A world in which one connection is idle, and another one is being established for a request.
fn busy() -> World {
    let mut world = World::new(2, |_| {});
    world.exchange(GET, OK);
    world.asking(GET);
    assert_eq!(world.proxy.check(), Ok(()));
    world
}

/// A world in which one stream is open on an HTTP/2 connection.
fn streams() -> World {
    let mut world = World::new(1, |plan| plan.members[0].h2c = true);
    world.asking(GET);
    world.connect();
    assert_eq!(world.proxy.check(), Ok(()));
    world
}

fn exchange(world: &mut World) -> &mut Exchange {
    let id = world.proxy.exchanges.keys().next().expect("a request is under way");
    world.proxy.exchanges.get_mut(id).expect("a request is under way")
}

fn connection(world: &mut World, is_wanted: fn(&Connection) -> bool) -> (Key, &mut Connection) {
    let mut keys = world.proxy.connections.keys().collect::<Vec<_>>().into_iter();
    let key = keys.find(|key| world.proxy.connections.get(*key).is_some_and(is_wanted)).expect("there is such a one");
    (key, world.proxy.connections.get_mut(key).expect("there is such a one"))
}

fn is_busy_client(connection: &Connection) -> bool {
    connection.is_client() && connection.exchange.is_some()
}

fn is_stream(connection: &Connection) -> bool {
    connection.codec.stream().is_some()
}

fn is_pooled(connection: &Connection) -> bool {
    !connection.is_client() && connection.exchange.is_none()
}

#[test]
fn each_broken_invariant_is_noticed() {
    let cases: [Case; 15] = [
        ("1 client", busy, |world| connection(world, is_busy_client).1.exchange = None, "which has Some(None)"),
        ("1 slot", busy, other_slot, "has the slot"),
        ("1 state", busy, connected_twice, "and its connection is Open"),
        ("1 end", busy, pooled_with_exchange, "is no end of its exchange"),
        ("2", busy, |world| _ = world.proxy.upstreams.balancer.take(1), "are counted as"),
        ("3 both", streams, waits_and_is_open, "waits 1 times and is open 1 times"),
        ("3 mux", streams, |world| stream_of(world, |stream| stream.id = 0), "waits 0 times and is open 1 times"),
        ("4 bytes", busy, pooled_with_bytes, "is pooled with bytes"),
        ("4 count", busy, forget_idle, "connections are idle"),
        ("5 sum", busy, |world| world.proxy.totals.grown = 1, "counted as 1"),
        ("5 limit", streams, too_much_growth, "windows are grown by"),
        ("5 held", busy, |world| held(world, 1), "its queue has room"),
        ("6", busy, |world| connection(world, is_pooled).1.read_paused = true, "nothing will wake it"),
        ("7 pool", busy, |world| forget_deadline(world, is_pooled), "waits for Pool without a deadline"),
        ("7 backend", busy, |world| forget_deadline(world, is_dialled), "waits for Connect without a deadline"),
    ];
    for (name, world, break_it, text) in cases {
        let mut world = world();
        break_it(&mut world);
        let found = world.proxy.check();
        assert!(found.as_ref().is_err_and(|error| error.contains(text)), "{name}: {found:?}");
    }
}

fn is_dialled(connection: &Connection) -> bool {
    connection.phase == Phase::Connecting
}

fn forget_deadline(world: &mut World, is_wanted: fn(&Connection) -> bool) {
    let (key, _) = connection(world, is_wanted);
    world.proxy.ledger.timers.set(key.index(), NEVER);
}

fn other_slot(world: &mut World) {
    if let Upstream::Assigned { slot, .. } | Upstream::Open { slot, .. } = &mut exchange(world).upstream {
        *slot ^= 1;
    }
}

fn connected_twice(world: &mut World) {
    connection(world, is_dialled).1.phase = Phase::Open;
}

fn pooled_with_exchange(world: &mut World) {
    let id = world.proxy.exchanges.keys().next();
    connection(world, is_pooled).1.exchange = id;
}

fn pooled_with_bytes(world: &mut World) {
    let buffer = world.proxy.scratch.buffers.take();
    connection(world, is_pooled).1.input = Some(buffer);
}

fn forget_idle(world: &mut World) {
    let idle = &mut world.proxy.upstreams.idle;
    assert!(idle.take(0).or_else(|| idle.take(1)).is_some());
}

fn stream_of(world: &mut World, change: fn(&mut super::super::mux::Stream)) {
    change(connection(world, is_stream).1.codec.stream_mut().expect("it is a stream"));
}

fn waits_and_is_open(world: &mut World) {
    let (key, stream) = connection(world, is_stream);
    let mux = stream.codec.stream().expect("it is a stream").mux;
    let mux = world.proxy.connections.get_mut(mux).and_then(|mux| mux.codec.mux_mut());
    mux.and_then(Mux::upstream_mut).expect("it is a mux").waiting.push_back(key);
}

fn too_much_growth(world: &mut World) {
    stream_of(world, |stream| stream.growth = H2_GROWTH_BYTES + 1);
    world.proxy.totals.grown = H2_GROWTH_BYTES + 1;
}

fn held(world: &mut World, bytes: u32) {
    connection(world, is_busy_client).1.client_mut().expect("it is a client").held = bytes;
    world.proxy.totals.grown = bytes;
}

#[test]
fn a_missing_value_is_counted() {
    let mut world = busy();
    let gone = world.proxy.connections.keys().next().expect("there are connections");
    world.proxy.connections.remove(gone);
    let missed =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.proxy.connections.living(gone).is_none()));
    assert_eq!(missed.is_err(), cfg!(debug_assertions));
    assert_eq!(world.metric("zzz_lb_missing_values_total"), 1);
}
