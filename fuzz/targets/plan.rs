//! The bytes of a plan, from shared memory that an older program may have written. Any bytes are read within
//! bounds, and an accepted plan is the same after it is written and read again.
//!
//! The input is a list of patches to the bytes of a valid plan, each a position of two bytes and a value. If
//! the first byte is odd, the input is the bytes themselves.

use std::net::SocketAddr;

use zzz_lb::config::Plan;

/// Panics if a plan changes when it is written and read again.
pub fn run(data: &[u8]) {
    run_with(data, |_| {});
}

/// Like [`run`], with a fault planted in the bytes before they are read again.
pub fn run_with(data: &[u8], plant: fn(&mut Vec<u8>)) {
    let Some((&first, rest)) = data.split_first() else { return };
    if first % 2 == 1 {
        return check(rest, plant);
    }
    let address = |n: u16| SocketAddr::from(([127, 0, 0, 1], 9000 + n));
    let mut plan = Plan::over((0..u16::from(first >> 1) % 4).map(address));
    plan.via = (first & 16 != 0).then(|| "zzz".into());
    plan.unresolved = vec!["a".into(); usize::from(first >> 6)];
    let mut bytes = plan.encode();
    for patch in rest.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([patch[0], patch[1]])) % bytes.len();
        bytes[at] = patch[2];
    }
    check(&bytes, plant);
}

fn check(bytes: &[u8], plant: fn(&mut Vec<u8>)) {
    let Some(plan) = Plan::decode(bytes) else { return };
    let mut again = plan.encode();
    plant(&mut again);
    assert_eq!(Plan::decode(&again), Some(plan), "a plan changes when it is written and read again");
    assert_eq!(Plan::decode(&bytes[..bytes.len() - 1]), None, "a plan that is cut short");
}
