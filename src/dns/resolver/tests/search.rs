//! The search list: the candidates that are queried, and the answer that counts.

use super::server::{Script, World, addresses, ips};
use super::*;

/// The queried names, by their A queries.
fn tried(conf: &str, name: &str) -> Vec<String> {
    let mut world = World::new(conf, "");
    world.want(&[name]);
    let asked = world.take_asked();
    let names = asked.iter().filter_map(|line| line.strip_suffix(" A")?.strip_prefix("10.0.0.1 "));
    names.map(str::to_string).collect()
}

#[test]
fn names_are_sought_below_the_domains_of_the_search_list() {
    let conf = "nameserver 10.0.0.1\nsearch x.test y\noptions ndots:2";
    assert_eq!(tried(conf, "a"), ["a.x.test", "a.y", "a"]);
    assert_eq!(tried(conf, "a.b"), ["a.b.x.test", "a.b.y", "a.b"]);
    assert_eq!(tried(conf, "a.b.c"), ["a.b.c", "a.b.c.x.test", "a.b.c.y"]);
    assert_eq!(tried(conf, "a."), ["a"]);
    assert_eq!(tried(ONE, "a"), ["a"]);
    // With the domain appended, this name is too long.
    let long = format!("{}b", "x".repeat(63) + "." + &"abcdefg.".repeat(23));
    assert_eq!(tried(conf, &long), [long.clone(), format!("{long}.y")]);
}

#[test]
fn the_first_that_exists_with_addresses_is_taken() {
    let mut world = World::new("nameserver 10.0.0.1\nsearch x y", "");
    world.serve("a.x", Script::Nothing(true, Some(60)));
    world.serve("a.y", addresses(&["10.1.0.1"], 60));
    world.serve("a", addresses(&["10.1.0.9"], 60));
    world.want(&["a"]);
    assert_eq!(world.resolver.addresses("a"), ips(&["10.1.0.1"]));
    // A server failure says nothing about the existence of the name.
    world.serve("a.x", Script::Code(2));
    world.resolver.refresh(world.now_us);
    world.settle();
    assert_eq!(world.resolver.state("a"), Some(State::Stale(Reason::Server(2))));
}
