//! Muxes to backends that belong to one client, because they begin with a PROXY header.

use super::downstream::*;
use super::*;
use crate::http::proxy_header;
use crate::limits::{H2_PARITY_BYTES, QUEUE_HIGH_BYTES};

/// The content that a client sends for each backend.
const CONTENT: usize = 60_000;

/// A proxy before this number of backends, which keeps as many idle connections to them.
fn world(backends: u16, idle: usize) -> World {
    let mut world = World::new(backends, false);
    world.plan.send_proxy = Some(proxy_header::Version::V2);
    world.proxy.follow(&world.plan);
    world.proxy.limit_idle(idle);
    world
}

impl World {
    /// Has a client send a request with content for each backend. These take none of it. Returns the connections to them.
    fn upload_unread(&mut self, client: Key) -> Vec<Key> {
        (0..self.plan.members.len() as u32).map(|n| self.upload_one(client, 2 * n + 1)).collect()
    }

    fn upload_one(&mut self, client: Key, stream: u32) -> Key {
        self.give(client, &frame_of(Kind::Headers, END_HEADERS, stream, &head(b"POST", &[])));
        let backend = self.connected(true);
        self.frame(backend, Kind::WindowUpdate, 0, 0, &(1_u32 << 20).to_be_bytes());
        self.stalled.push(backend);
        let content = [b'x'; CONTENT];
        for piece in content.chunks(H2_FRAME_BYTES) {
            self.give(client, &frame_of(Kind::Data, 0, stream, piece));
        }
        self.audit();
        backend
    }

    fn queued_bytes(&self, keys: &[Key]) -> usize {
        keys.iter().filter_map(|&key| self.proxy.queued(key)).map(Queue::len).sum()
    }
}

#[test]
fn the_queue_of_a_mux_is_charged_to_its_owner() {
    let mut world = world(4, usize::MAX);
    let client = world.client();
    let backends = world.upload_unread(client);
    let queued = world.queued_bytes(&backends);
    assert!(queued > 3 * CONTENT, "{queued} bytes are queued");
    let held = |world: &mut World| world.proxy.downstream_mut(client).map_or(0, |downstream| downstream.held);
    assert!(held(&mut world) > queued, "{} bytes are charged", held(&mut world));
    let loan = held(&mut world) - H2_PARITY_BYTES;
    assert_eq!(world.proxy.totals.lent, loan);
    // A backend leaves, and the others read.
    world.proxy.failed(backends[0], Failure::Broken(104));
    world.stalled.clear();
    for &backend in &backends[1..] {
        world.proxy.sent(backend, 0);
        let queued = world.proxy.queued(backend).map_or(0, Queue::len);
        world.proxy.sent(backend, queued);
    }
    world.carry_out();
    world.audit();
    assert!(held(&mut world) < QUEUE_HIGH_BYTES, "{} bytes are charged", held(&mut world));
    world.proxy.failed(client, Failure::Broken(104));
    world.carry_out();
    world.audit();
}

#[test]
fn muxes_that_their_backends_do_not_read_are_closed_if_the_budget_is_spent() {
    let mut world = world(4, usize::MAX);
    let (mut clients, mut muxes) = (Vec::new(), Vec::new());
    while world.proxy.shared.block.get(Count::H2BudgetExhausted) == 0 {
        let queued = world.queued_bytes(&muxes);
        assert!(queued < 4 * H2_GROWTH_BYTES as usize, "{queued} bytes are queued, and nothing is reset");
        clients.push(world.client());
        let owned = world.upload_unread(clients[clients.len() - 1]);
        muxes.extend(owned);
    }
    // Resets of streams do not empty the queues of their muxes.
    let (lent, held) = (world.proxy.totals.lent, clients.len() * H2_PARITY_BYTES);
    assert!(lent <= H2_GROWTH_BYTES as usize);
    assert!(world.queued_bytes(&muxes) <= lent + held);
    assert!(muxes.iter().any(|key| world.closed.contains(key)));
}

#[test]
fn idle_muxes_of_clients_are_bounded_and_those_with_streams_stay() {
    let (clients, most) = (12, 5);
    let mut world = world(1, most);
    let mut owners = Vec::new();
    for _ in 0..clients {
        let client = world.client();
        world.give(client, &get(1));
        let backend = world.connected(true);
        owners.push((client, backend));
    }
    world.audit();
    assert_eq!(world.closed, [], "each has a stream");
    for (at, &(_, backend)) in owners.iter().enumerate() {
        world.frame(backend, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x88]);
        world.audit();
        // The one that has been idle for longest is closed.
        let closed: Vec<Key> = owners[..(at + 1).saturating_sub(most)].iter().map(|&(_, backend)| backend).collect();
        assert_eq!(world.closed, closed);
    }
    // A mux that is used again is not idle any more.
    let (client, backend) = owners[clients - most];
    world.give(client, &get(3));
    assert!(world.dials.is_empty(), "it is used again");
    world.audit();
    assert!(world.proxy.evict_idle());
    world.carry_out();
    assert!(!world.closed.contains(&backend));
    assert_eq!(world.closed.last(), Some(&owners[clients - most + 1].1));
    world.audit();
    (0..most - 2).for_each(|_| assert!(world.proxy.evict_idle()));
    assert!(!world.proxy.evict_idle(), "only the busy one is left");
}
