//! The duties with a name server of the test's own: the addresses of names, and the time at which a changed
//! file is used.

use super::*;
use crate::config::{self, Address};
use crate::limits::{NAMES_WAIT_US, SECOND_US};
use crate::metrics::Global;
use crate::process::duties::watch::Change;
use std::net::UdpSocket;

const APP: &str = r#"{"backends": [{"host": "app.test", "port": 80}]}"#;
const AT: [u8; 4] = [10, 0, 0, 1];

/// Duties with the default backends, which wait for the name as long as a test takes, and the socket of the
/// name server.
fn duties() -> (Duties, UdpSocket) {
    let dns = UdpSocket::bind("127.0.0.1:0").unwrap();
    dns.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let config = config::resolve(Options::default()).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let begun = Duties::begin(config, Options::default(), None, address, Region::private(), Previous::default());
    let mut duties = begun.map_err(|failure| failure.message).unwrap();
    let mut names = Names::asking(dns.local_addr().unwrap(), clock::monotonic_us());
    names.want(&["app.test"], clock::monotonic_us() + 60 * SECOND_US);
    duties.names = Some(names);
    (duties, dns)
}

/// Answers the two questions that a lookup is: with this address, or that there is no such name.
fn answer(dns: &UdpSocket, address: Option<[u8; 4]>) {
    for _ in 0..2 {
        let mut message = [0; 512];
        let (length, from) = dns.recv_from(&mut message).expect("a question comes");
        let is_v4 = message[length - 3] == 1;
        let found = address.filter(|_| is_v4);
        (message[2], message[3]) = (0x81, if address.is_some() { 0x80 } else { 0x83 });
        message[7] = u8::from(found.is_some());
        let mut reply = message[..length].to_vec();
        if let Some(address) = found {
            // The name in the question, type A, class IN, a TTL of a minute.
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            reply.extend(address);
        }
        dns.send_to(&reply, from).unwrap();
    }
}

/// Sees to the duties until another plan holds.
fn follow(duties: &mut Duties) {
    let edition = duties.region.table().edition();
    let until_us = clock::monotonic_us() + 10 * SECOND_US;
    while duties.region.table().edition() == edition {
        assert!(clock::monotonic_us() < until_us, "no other plan");
        duties.reactor.poll(SECOND_US / 100).unwrap();
        duties.take_events();
        duties.turn().unwrap();
    }
}

/// The addresses for requests.
fn addresses(duties: &Duties) -> Vec<Address> {
    let plan = Plan::decode(&duties.region.table().read().1.unwrap()).unwrap();
    plan.members.into_iter().map(|member| member.address).collect()
}

fn tcp(ip: [u8; 4], ports: &[u16]) -> Vec<Address> {
    ports.iter().map(|&port| Address::Tcp(SocketAddr::from((ip, port)))).collect()
}

#[test]
fn those_that_serve_stay_until_it_is_known_where_a_name_leads() {
    let (mut duties, dns) = duties();
    let before = tcp([127, 0, 0, 1], &[9001, 9002]);
    duties.reload(APP.into(), false);
    assert_eq!(addresses(&duties), before);
    // Again, by HUP.
    duties.on_change(Change::Contents(APP.into()));
    duties.turn().unwrap();
    assert_eq!(addresses(&duties), before);
    answer(&dns, Some(AT));
    while addresses(&duties) == before {
        follow(&mut duties);
    }
    assert_eq!(addresses(&duties), tcp(AT, &[80]));
    assert_eq!(duties.globals().get_global(Global::ReloadsDone), 1);
    // It is zzz_lb_dns_changes_total.
    assert_eq!(duties.globals().get_global(Global::Moves), 1);
}

#[test]
fn a_name_that_leads_nowhere_is_waited_for_no_longer_than_that_takes() {
    let (mut duties, dns) = duties();
    duties.reload(APP.into(), false);
    answer(&dns, None);
    follow(&mut duties);
    assert_eq!(addresses(&duties), tcp(AT, &[]));
    // It is zzz_lb_dns_failures_total.
    assert_eq!(duties.globals().get_global(Global::LookupsFailed), 1);
}

#[test]
fn a_name_of_which_nothing_is_heard_is_waited_for_once() {
    let (mut duties, _dns) = duties();
    let since_us = clock::monotonic_us() - NAMES_WAIT_US;
    let names = duties.names.as_mut().unwrap();
    names.want(&[], since_us);
    names.want(&["app.test"], since_us);
    duties.reload(APP.into(), false);
    assert_eq!(addresses(&duties), tcp(AT, &[]));
    // Another change in the file is no reason to wait for the name again.
    duties.reload(APP.replace("80", "81").into(), false);
    assert_eq!(duties.globals().get_global(Global::ReloadsDone), 2);
}

#[test]
fn the_addresses_of_a_name_are_forgotten_with_the_name_after_an_upgrade() {
    let (mut duties, dns) = duties();
    let backend = Backend { name: "app.test:80".into(), ..Backend::at(([10, 0, 0, 9], 80).into()) };
    let before = tcp([10, 0, 0, 9], &[80]);
    duties.before = vec![Member::new(&backend, before[0].clone(), false)];
    duties.reload(APP.into(), false);
    assert_eq!(addresses(&duties), before);
    answer(&dns, Some(AT));
    follow(&mut duties);
    assert_eq!(addresses(&duties), tcp(AT, &[80]));
    duties.reload(r#"{"backends": [{"host": "10.0.0.2", "port": 80}]}"#.into(), false);
    assert_eq!(addresses(&duties), tcp([10, 0, 0, 2], &[80]));
    duties.reload(APP.into(), false);
    answer(&dns, None);
    while addresses(&duties) == tcp([10, 0, 0, 2], &[80]) {
        follow(&mut duties);
    }
    assert_eq!(addresses(&duties), tcp(AT, &[]));
}

#[test]
fn an_added_listener_needs_no_upgrade_if_a_service_manager_has_those_for_clients() {
    for (activated, upgrades) in
        [(vec![], true), (vec![config::Purpose::Admin], true), (vec![config::Purpose::Traffic], false)]
    {
        let (mut duties, _dns) = duties();
        duties.set_activated(activated);
        let file = r#"{"backends": ["10.0.0.1:80"], "listen": ["127.0.0.1:0"]}"#;
        duties.reload(file.into(), false);
        assert_eq!(duties.globals().get_global(Global::ReloadsDone), 1);
        assert_eq!(duties.take_wants_upgrade(), upgrades);
    }
}
