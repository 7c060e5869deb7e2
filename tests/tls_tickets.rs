//! The key of session tickets in a file: machines share it, and another one is used by all workers at once.

use std::sync::Arc;

use rustls::RootCertStore;

use crate::support::certificate::{Authority, Spec};
use crate::support::traffic::{Dial, Link, Target};
use crate::support::{Backend, Balancer, Directory, modes, wait_until};

/// Sends a request on a connection of its own, after which there is a ticket. Returns true if a session was resumed.
fn resumes(dial: &mut Dial) -> bool {
    let before = dial.resumed;
    let mut wire = dial.connect().expect("the handshake succeeds");
    assert_eq!(wire.get("/").text(), "backend");
    dial.resumed > before
}

#[test]
fn machines_with_one_file_resume_the_sessions_of_each_other_and_all_workers_follow_another_file() {
    for mode in modes() {
        let (directory, authority) = (Directory::new(), Authority::new("authority"));
        let issued = authority.issue(&Spec { names: &["localhost"], ..Spec::new("localhost") });
        let pair = directory.put("both.pem", &format!("{}{}", issued.pem(), issued.key_pem()));
        let file = directory.put("tickets", &[7; 80]);
        let backend = Backend::named("backend");
        let [pair, file] = [&pair, &file].map(|path| path.to_str().expect("text"));
        let machines =
            [(); 2].map(|()| Balancer::before(mode, &[&backend], &["--tls-cert", pair, "--tls-ticket-key", file]));
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone().into()).expect("a CA");
        let [first, second] = [&machines[0], &machines[1]].map(|machine| {
            let address = machine.address();
            Arc::new(Target { plain: address, secure: Some(address), roots: roots.clone(), own: None })
        });
        for link in [Link::Resumed, Link::Resumed12] {
            let mut dial = Dial::new(first.clone(), link, b"http/1.1");
            assert!(!resumes(&mut dial), "there is no session yet");
            for nth in 0..12 {
                dial.turn_to(if nth % 2 == 0 { second.clone() } else { first.clone() });
                assert!(resumes(&mut dial), "{mode:?}, {link:?}: connection {nth}");
            }
            dial.turn_to(first.clone());
            // Another file ends all sessions, so a key that was stolen is of no use any more.
            let changes =
                |machine: &Balancer| machine.log().matches("the keys of session tickets have changed").count();
            let before = machines.each_ref().map(changes);
            directory.put("tickets", &[if link == Link::Resumed { 8 } else { 9 }; 80]);
            wait_until("both have read it", || {
                machines.iter().zip(before).all(|(machine, before)| changes(machine) > before)
            });
            // A worker may accept a client in the turn in which it has not seen the key yet.
            wait_until("a session ends", || !resumes(&mut dial));
            wait_until("all workers have the key", || (0..8).all(|_| resumes(&mut dial)));
            dial.turn_to(second.clone());
            wait_until("the other machine has it, too", || (0..8).all(|_| resumes(&mut dial)));
        }
    }
}
