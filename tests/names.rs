//! Names of backends, answered by a DNS server.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use crate::support::{Backend, Balancer, DEADLINE, Directory, command, modes, skipped, wait_until};

/// The TTL of answers in seconds. The balancer resolves a name at least once a minute regardless.
const TTL_S: u32 = 600;
const _: () = assert!(DEADLINE.as_secs() < 60, "a change that a test sees in time was not found by age alone");

const A: [u8; 4] = [0, 1, 0, 1];
/// The owner of a record: a pointer to the name in the question.
const SAME_NAME: [u8; 2] = [0xc0, 12];
const HEADER_BYTES: usize = 12;

/// A server that gives one IPv4 address for every name, and no IPv6.
struct Names {
    address: Mutex<Ipv4Addr>,
    /// The number of queries for IPv4 addresses.
    asked: AtomicUsize,
}

impl Names {
    /// Serves on port 53 of a loopback address; `None` if that is not allowed here.
    fn serve(at: Ipv4Addr, address: Ipv4Addr) -> Option<Arc<Names>> {
        let socket = UdpSocket::bind((at, 53)).ok()?;
        let names = Arc::new(Names { address: Mutex::new(address), asked: AtomicUsize::new(0) });
        let served = names.clone();
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let _ = socket.send_to(&served.answer(&query[..length]), from);
            }
        });
        Some(names)
    }

    fn answer(&self, query: &[u8]) -> Vec<u8> {
        let name = query[HEADER_BYTES..].iter().position(|&byte| byte == 0).expect("a name ends with its root") + 1;
        let question = &query[HEADER_BYTES..HEADER_BYTES + name + 4];
        let is_a = question[name..] == A;
        let mut answer = query[..2].to_vec();
        // A response with recursion available, one question, and one record in its section.
        answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, u8::from(!is_a), 0, 0]);
        answer.extend(question);
        answer.extend(SAME_NAME);
        if is_a {
            self.asked.fetch_add(1, SeqCst);
            answer.extend(A);
            answer.extend(TTL_S.to_be_bytes());
            answer.extend([0, 4]);
            answer.extend(self.address.lock().unwrap().octets());
        } else {
            // SOA: two names, which are the root, and five numbers.
            answer.extend([0, 6, 0, 1]);
            answer.extend(TTL_S.to_be_bytes());
            answer.extend([0, 22, 0, 0]);
            (0..5).for_each(|_| answer.extend(TTL_S.to_be_bytes()));
        }
        answer
    }
}

/// A command that runs with this server in /etc/resolv.conf; `None` if that is impossible here.
fn beside(server: Ipv4Addr, directory: &Directory, inner: &Command) -> Option<Command> {
    let conf = directory.put("resolv.conf", &format!("nameserver {server}\noptions timeout:1\n"));
    let script = "mount --bind \"$0\" /etc/resolv.conf || exit 99; exec \"$@\"";
    let shell = |program: &std::ffi::OsStr| {
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "sh", "-c", script]).arg(&conf).arg(program);
        shell
    };
    if !shell("true".as_ref()).status().is_ok_and(|status| status.success()) {
        return None;
    }
    let mut outer = shell(inner.get_program());
    outer.args(inner.get_args());
    outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Some(outer)
}

/// A container that moves keeps its name. The worker that cannot connect notes it in shared memory, the master
/// looks the name up again, and all workers follow the new plan.
#[test]
fn a_name_with_a_failing_address_is_looked_up_before_its_ttl_expires() {
    let loopback = |last| Ipv4Addr::new(127, 54, (std::process::id() % 250) as u8, last);
    let Some(names) = Names::serve(loopback(53), loopback(1)) else { return skipped("port 53 cannot be bound here") };
    for mode in modes() {
        let directory = Directory::new();
        let mut old = Backend::named_on(&format!("{}:0", loopback(1)), "old");
        let port = old.spec().parse::<SocketAddr>().expect("a TCP backend").port();
        *names.address.lock().unwrap() = loopback(1);
        let spec = format!("moving.test:{port}");
        let all = [mode.args(), &["--host", "127.0.0.1", "-p", "0", "-b", &spec]].concat();
        let Some(command) = beside(loopback(53), &directory, &command(&all)) else {
            return skipped("/etc/resolv.conf cannot be replaced here");
        };
        let balancer = Balancer::spawn(command);
        let get = || balancer.connect().get("/").text();
        wait_until("the first address serves", || get() == "old");
        let asked = names.asked.load(SeqCst);
        let _new = Backend::named_on(&format!("{}:{port}", loopback(2)), "new");
        *names.address.lock().unwrap() = loopback(2);
        old.stop();
        wait_until("the second address serves", || get() == "new");
        assert!(names.asked.load(SeqCst) > asked, "{mode:?}");
        // Every worker has the plan: none uses the first address any more.
        wait_until("all follow", || (0..8).all(|_| get() == "new"));
    }
}
