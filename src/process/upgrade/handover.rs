//! The handover: the text in an environment variable by which a program that is upgraded describes itself to its
//! successor. Pure.
//!
//! The first word is the number of the form, and every version keeps that: a program that does not know the form
//! refuses the upgrade before anything has changed. A running program asks in form 3 first. If the file does not know
//! that, it asks again in form 2. The file answers in the form of the question, and gets the handover in that form.
//!
//! ```text
//! 3 pid=7 generation=1 segment=12 listener=0.0.0.0:80/traffic:5/6,7 listener=127.0.0.1:9100/admin:8 elder=40:0:0:-
//! ```
//!
//! A listener has its address, its purpose and the descriptors of its sockets: a slash separates workers, a comma the
//! sockets of a worker. Behind the purpose are `+tls`, `+proxy` and `+activated`, in this order, if they apply. The
//! purpose `redirect-443` has the port of the redirects.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use super::form2::{self, numbers, parse_numbers};
use crate::config::{Listen, Purpose};
use crate::process::start::listen::{Listener, Sockets};

/// The variable of the handover.
pub(in crate::process) const VARIABLE: &str = "ZZZ_LB_HANDOVER";
/// The variable of the question whether a program could take over. It has the form of a handover.
pub(in crate::process) const QUESTION: &str = "ZZZ_LB_PREFLIGHT";
/// The error of a program that does not know the form of the question.
pub(in crate::process) const UNKNOWN_FORM: &str =
    "the program that runs hands over in a form that this one does not know";

/// The words for the purposes. The port follows that of a redirect.
const TRAFFIC: &str = "traffic";
const ADMIN: &str = "admin";
const REDIRECT: &str = "redirect-";
/// The words behind the purpose: the connections use TLS, they begin with a PROXY header, and a service manager has made
/// the listener.
const TLS: &str = "+tls";
const PROXY_HEADER: &str = "+proxy";
const ACTIVATED: &str = "+activated";

/// A form of the handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) enum Form {
    /// One listener for traffic and one for the admin port.
    Two,
    /// A list of listeners.
    Three,
}

impl Form {
    /// Returns the form of a line, if it is a known one.
    pub(in crate::process) fn of(line: &str) -> Option<Form> {
        let number = line.split(' ').next()?;
        [Form::Two, Form::Three].into_iter().find(|form| form.number() == number)
    }

    fn number(self) -> &'static str {
        match self {
            Form::Two => "2",
            Form::Three => "3",
        }
    }

    /// The answer of a program that could take over, and knows this form.
    pub(in crate::process) fn answer(self) -> &'static str {
        match self {
            Form::Two => "zzz_lb can take over: form 2",
            Form::Three => "zzz_lb can take over: form 3",
        }
    }
}

/// The description of a program that is upgraded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The process, which stays the same. It is named so that no other process takes the handover for its own.
    pub(in crate::process) pid: u32,
    /// The number of upgrades, with this one.
    pub(in crate::process) generation: u64,
    /// The number of the shared memory.
    pub(in crate::process) segment: i32,
    /// The numbers of shared memory with another layout that workers still count in, the oldest first.
    pub(in crate::process) older: Vec<i32>,
    /// The listeners.
    pub(in crate::process) listeners: Vec<Listener<RawFd>>,
    /// Workers that continue.
    pub(in crate::process) old_workers: Vec<OldWorker>,
    /// The addresses of the demo's backends; none without `--demo`.
    pub(in crate::process) demo: Vec<SocketAddr>,
    /// True if another upgrade was asked for meanwhile.
    pub(in crate::process) again: bool,
}

/// A worker of a program before an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldWorker {
    /// The process.
    pub(in crate::process) pid: i32,
    /// Its worker record in its shared memory; `None` if that is not known.
    pub(in crate::process) record: Option<usize>,
    /// The number of that memory, if it is one of `Handover::older`.
    pub(in crate::process) memory: Option<i32>,
    /// The number of upgrades before it was forked.
    pub(in crate::process) generation: u64,
    /// The time in microseconds at which it is killed if it still runs; `None` while it accepts.
    pub(in crate::process) until_us: Option<u64>,
}

/// Writes form 3.
impl fmt::Display for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listeners: String = self.listeners.iter().map(|listener| format!(" listener={}", Word(listener))).collect();
        f.write_str(&self.line(Form::Three, &listeners))
    }
}

/// A listener in form 3.
struct Word<'a>(&'a Listener<RawFd>);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listener { listen: Listen { address, purpose, tls, proxy_header }, is_activated, sockets } = self.0;
        write!(f, "{address}/")?;
        match purpose {
            Purpose::Traffic => f.write_str(TRAFFIC)?,
            Purpose::Redirect { to_port } => write!(f, "{REDIRECT}{to_port}")?,
            Purpose::Admin => f.write_str(ADMIN)?,
        }
        for (_, word) in
            [(tls, TLS), (proxy_header, PROXY_HEADER), (is_activated, ACTIVATED)].iter().filter(|one| *one.0)
        {
            f.write_str(word)?;
        }
        f.write_str(":")?;
        match sockets {
            Sockets::One(socket) => socket.fmt(f),
            Sockets::Each(shares) => {
                f.write_str(&shares.iter().map(|share| numbers(share)).collect::<Vec<_>>().join("/"))
            }
        }
    }
}

impl Word<'_> {
    fn parse(word: &str) -> Option<Listener<RawFd>> {
        let (address, rest) = word.split_once('/')?;
        let (kind, sockets) = rest.split_once(':')?;
        let without = |kind, word| str::strip_suffix(kind, word).map_or((kind, false), |kind| (kind, true));
        let (kind, is_activated) = without(kind, ACTIVATED);
        let (kind, proxy_header) = without(kind, PROXY_HEADER);
        let (kind, tls) = without(kind, TLS);
        let purpose = match (kind, kind.strip_prefix(REDIRECT)) {
            (TRAFFIC, _) => Purpose::Traffic,
            (ADMIN, _) => Purpose::Admin,
            (_, port) => Purpose::Redirect { to_port: port?.parse().ok()? },
        };
        let sockets = match purpose {
            Purpose::Admin => Sockets::One(sockets.parse().ok()?),
            _ if sockets.is_empty() => Sockets::Each(Vec::new()),
            _ => Sockets::Each(sockets.split('/').map(parse_numbers).collect::<Option<_>>()?),
        };
        let listen = Listen { address: address.parse().ok()?, purpose, tls, proxy_header };
        Some(Listener { listen, is_activated, sockets })
    }
}

/// A number or a dash.
struct Maybe<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Maybe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(number) => number.fmt(f),
            None => f.write_str("-"),
        }
    }
}

impl Handover {
    /// Writes the handover in form 2; `None` if that cannot express it.
    pub fn in_form_2(&self) -> Option<String> {
        Some(self.line(Form::Two, &form2::words(&self.listeners)?))
    }

    /// Writes the handover with these words for the listeners.
    fn line(&self, form: Form, listeners: &str) -> String {
        let Handover { pid, generation, segment, .. } = self;
        let mut words =
            vec![format!("{} pid={pid} generation={generation} segment={segment}{listeners}", form.number())];
        // A program that does not know these words refuses the upgrade, so that it loses no counts.
        words.extend(self.older.iter().map(|memory| format!("older={memory}")));
        words.extend(self.old_workers.iter().map(|old_worker| format!("elder={old_worker}")));
        words.extend(self.demo.iter().map(|address| format!("demo={address}")));
        words.extend(self.again.then(|| "again=1".to_owned()));
        words.join(" ")
    }

    /// Reads a line of either form. `None` if it has another form, or is malformed.
    pub fn parse(line: &str) -> Option<Handover> {
        let form = Form::of(line)?;
        let (mut pid, mut generation, mut segment, mut again) = (None, None, None, false);
        let (mut listeners, mut old_workers, mut demo, mut older) = (vec![], vec![], vec![], vec![]);
        let mut of_form_2 = form2::Listeners::default();
        for word in line.split(' ').skip(1) {
            let (name, value) = word.split_once('=')?;
            match (name, form) {
                ("pid", _) => pid = Some(value.parse().ok()?),
                ("generation", _) => generation = Some(value.parse().ok()?),
                ("segment", _) => segment = Some(value.parse().ok()?),
                ("older", _) => older.push(value.parse().ok()?),
                ("elder", _) => old_workers.push(OldWorker::parse(value)?),
                ("demo", _) => demo.push(value.parse().ok()?),
                ("again", _) => again = value == "1",
                ("listener", Form::Three) => listeners.push(Word::parse(value)?),
                (_, Form::Three) => return None,
                (_, Form::Two) => of_form_2.read(name, value)?,
            }
        }
        if form == Form::Two {
            listeners = of_form_2.list()?;
        }
        let (pid, generation, segment) = (pid?, generation?, segment?);
        Some(Handover { pid, generation, segment, older, listeners, old_workers, demo, again })
    }
}

#[cfg(test)]
impl Handover {
    /// The handover of a program with this memory, without listeners and workers.
    pub(in crate::process) fn of(segment: i32) -> Handover {
        let line = format!("3 pid=1 generation=1 segment={segment}");
        Handover::parse(&line).expect("it is a line")
    }
}

impl fmt::Display for OldWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OldWorker { pid, record, memory, generation, until_us } = self;
        write!(f, "{pid}:{}", Maybe(*record))?;
        if let Some(memory) = memory {
            write!(f, "@{memory}")?;
        }
        write!(f, ":{generation}:{}", Maybe(*until_us))
    }
}

impl OldWorker {
    /// True if it has not received the signal to drain.
    pub(in crate::process) fn is_accepting(&self) -> bool {
        self.until_us.is_none()
    }

    fn parse(text: &str) -> Option<OldWorker> {
        let parts: Vec<&str> = text.split(':').collect();
        let [pid, record, generation, until_us] = parts[..] else { return None };
        let pid = pid.parse().ok().filter(|&pid| pid > 0)?;
        let maybe = |text: &str| if text == "-" { Some(None) } else { text.parse().ok().map(Some) };
        let (record, memory) = record.split_once('@').map_or((record, None), |(record, memory)| (record, Some(memory)));
        let memory = memory.map(|memory| memory.parse().ok()).map_or(Some(None), |memory| memory.map(Some))?;
        let record = maybe(record)?.map(|record: u64| record as usize);
        Some(OldWorker { pid, record, memory, generation: generation.parse().ok()?, until_us: maybe(until_us)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str, purpose: Purpose, sockets: Sockets<RawFd>) -> Listener<RawFd> {
        Listener { listen: Listen::plain(address.parse().unwrap(), purpose), is_activated: false, sockets }
    }

    fn handover(listeners: Vec<Listener<RawFd>>) -> Handover {
        Handover { listeners, ..Handover::of(12) }
    }

    #[test]
    fn a_handover_is_read_as_it_was_written() {
        let traffic = listener("[::1]:8080", Purpose::Traffic, Sockets::Each(vec![vec![5, 6], vec![7]]));
        let admin = listener("127.0.0.1:9090", Purpose::Admin, Sockets::One(9));
        let mut left = Handover {
            pid: 7,
            generation: 3,
            segment: 12,
            older: vec![8, 11],
            listeners: vec![Listener { is_activated: true, ..traffic.clone() }, traffic, admin],
            old_workers: vec![
                OldWorker { pid: 40, record: Some(2), memory: None, generation: 2, until_us: None },
                OldWorker { pid: 42, record: Some(3), memory: Some(8), generation: 1, until_us: Some(7) },
                OldWorker { pid: 41, record: None, memory: None, generation: 1, until_us: Some(77) },
            ],
            demo: vec!["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()],
            again: true,
        };
        assert_eq!(Handover::parse(&left.to_string()), Some(left.clone()));
        (left.pid, left.again) = (1, false);
        left.old_workers.clear();
        left.older.clear();
        left.demo.clear();
        left.listeners.truncate(2);
        left.listeners[1].sockets = Sockets::Each(Vec::new());
        let listeners = "listener=[::1]:8080/traffic+activated:5,6/7 listener=[::1]:8080/traffic:";
        assert_eq!(left.to_string(), format!("3 pid=1 generation=3 segment=12 {listeners}"));
        assert_eq!(Handover::parse(&left.to_string()), Some(left));
    }

    #[test]
    fn a_listener_says_what_its_connections_carry() {
        let each = || Sockets::Each(vec![vec![5], vec![6]]);
        let redirect = listener("127.0.0.1:80", Purpose::Redirect { to_port: 8443 }, each());
        let mut encrypted = listener("127.0.0.1:443", Purpose::Traffic, each());
        (encrypted.listen.tls, encrypted.listen.proxy_header) = (true, true);
        let mut proxied = listener("127.0.0.1:81", Purpose::Traffic, each());
        (proxied.listen.proxy_header, proxied.is_activated) = (true, true);
        for (listener, word) in [
            (redirect, "127.0.0.1:80/redirect-8443:5/6"),
            (encrypted, "127.0.0.1:443/traffic+tls+proxy:5/6"),
            (proxied, "127.0.0.1:81/traffic+proxy+activated:5/6"),
        ] {
            let left = handover(vec![listener]);
            assert_eq!(left.to_string(), format!("3 pid=1 generation=1 segment=12 listener={word}"));
            assert_eq!(Handover::parse(&left.to_string()).as_ref(), Some(&left));
            assert_eq!(left.in_form_2(), None, "form 2 has no word for it");
        }
    }

    #[test]
    fn form_2_says_the_same_of_one_listener_and_an_admin_port() {
        let traffic = listener("[::1]:8080", Purpose::Traffic, Sockets::Each(vec![vec![5, 6], vec![7]]));
        let admin = listener("127.0.0.1:9090", Purpose::Admin, Sockets::One(9));
        let activated = Listener { is_activated: true, ..traffic.clone() };
        let both = handover(vec![traffic.clone(), admin.clone()]);
        let words = "address=[::1]:8080 listeners=5,6 listeners=7 admin=9@127.0.0.1:9090";
        assert_eq!(both.in_form_2().unwrap(), format!("2 pid=1 generation=1 segment=12 {words}"));
        for left in [both, handover(vec![traffic.clone()]), handover(vec![activated.clone(), admin.clone()])] {
            assert_eq!(Handover::parse(&left.in_form_2().unwrap()), Some(left));
        }
        // The sockets of a service manager may have several addresses. Form 2 names the first one.
        let other = Listener { sockets: Sockets::Each(vec![vec![8], vec![9]]), ..activated.clone() };
        let several = handover(vec![activated, other]).in_form_2().unwrap();
        assert!(several.ends_with("address=[::1]:8080 listeners=5,6,8 listeners=7,9 activated=1"), "{several}");
        for listeners in
            [vec![traffic.clone(), traffic.clone()], vec![traffic, admin.clone(), admin.clone()], vec![admin]]
        {
            assert_eq!(handover(listeners).in_form_2(), None);
        }
    }

    #[test]
    fn a_line_of_another_form_is_not_read() {
        let form_3 = "3 pid=7 generation=3 segment=12";
        let form_2 = "2 pid=7 generation=3 segment=12 address=127.0.0.1:80";
        assert!(Handover::parse(form_3).is_some() && Handover::parse(form_2).is_some());
        assert_eq!([form_2, form_3, "4 pid=7"].map(Form::of), [Some(Form::Two), Some(Form::Three), None]);
        for line in ["", "1 pid=7 generation=3 segment=12 address=127.0.0.1:80", "2 pid=7 generation=3 segment=12"] {
            assert_eq!(Handover::parse(line), None, "{line}");
        }
        for (form, words) in [
            (form_2, "news=1"),
            (form_2, "elder=1:2:3"),
            (form_2, "elder=-1:2:3:-"),
            (form_2, "pid=x"),
            (form_2, "listener=127.0.0.1:80/traffic:1"),
            (form_3, "news=1"),
            (form_3, "address=127.0.0.1:80"),
            (form_3, "listener=127.0.0.1:80"),
            (form_3, "listener=127.0.0.1:80/traffic"),
            (form_3, "listener=127.0.0.1:80/redirect:1"),
            (form_3, "listener=127.0.0.1:80/redirect-x:1"),
            (form_3, "listener=127.0.0.1:80/traffic+proxy+tls:1"),
            (form_3, "listener=127.0.0.1:80/traffic+:1"),
            (form_3, "listener=127.0.0.1:80/traffic:1,/2"),
            (form_3, "listener=127.0.0.1:80/traffic:1/"),
            (form_3, "listener=127.0.0.1:80/admin:"),
            (form_3, "listener=127.0.0.1:80/admin:1/2"),
        ] {
            let line = format!("{form} {words}");
            assert_eq!(Handover::parse(&line), None, "{line}");
        }
    }
}
