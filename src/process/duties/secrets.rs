//! The secrets of the front door: read from their files, checked, and published for all workers.
//!
//! ```text
//! Good ──a file changes, and the files do not fit together──▶ Doubtful ──some time──▶ Bad
//!   ▲                                                            │                      │
//!   └──────────────the files fit together────────────────────────┴──────────────────────┘
//! ```
//!
//! Only what has been checked is published, so a bad file changes nothing: the pair before stays. A certificate and its
//! key are replaced one after the other, so files that do not fit get some time before this is logged and counted. The
//! table before an upgrade is the state to begin with. The names of the files are published too: if a configuration names
//! another file, nothing from before stands in for it, and a bad one refuses the reload, the upgrade or the start.
//!
//! A file that only root can read is read before root is given up. It stays for the whole life of the program, which is
//! no fault. It becomes one if the certificate beside a key has changed.

pub(in crate::process) mod files;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::files::FileError;
use super::Duties;
use crate::config::{Files, PairFiles, Secret, Secrets, StoredPair, Tls};
use crate::limits::{CLIENT_AUTHORITY_FILE_BYTES, PAIR_FILE_BYTES, SECOND_US, SECRETS_BYTES, TICKET_RETRY_US};
use crate::log::Level;
use crate::metrics::Global;
use crate::sys::{self, clock, entropy, file};
use crate::tls::chain::{self, Fault};
use crate::tls::dev;
use crate::tls::pair::Pair;
use crate::tls::server::{self, Authorities, Settings};
use crate::tls::tickets::{KEY_BYTES, Keys};

/// The name of a generated certificate.
const GENERATED: &str = "--tls-dev";

/// The secrets that are published, and the doubts about their files.
#[derive(Default)]
pub(super) struct Kept {
    secrets: Secrets,
    /// The files that changed, and have not led to other secrets yet.
    doubts: Vec<Doubt>,
    /// The secrets before an upgrade, until this program serves.
    before: Option<Vec<u8>>,
    /// The earliest time at which the keys of tickets are changed, in microseconds. It is in the future if that has just
    /// failed.
    rotate_us: u64,
}

/// A file or a pair of files that cannot be used now.
struct Doubt {
    source: String,
    problem: String,
    /// When it is logged, in microseconds. `None`: it was.
    told_us: Option<u64>,
}

/// A problem of files.
struct Problem {
    /// The name of the pair, or of the file.
    source: String,
    text: String,
    /// The file that the user is not allowed to read, if that is the only problem.
    denied: Option<PathBuf>,
}

impl Problem {
    fn new(source: &str, text: impl ToString) -> Problem {
        Problem { source: source.to_owned(), text: text.to_string(), denied: None }
    }

    fn of_file(source: &str, FileError { text, denied }: FileError) -> Problem {
        Problem { source: source.to_owned(), text, denied }
    }

    /// Says how to go on if a program that published no names of files has read a file that this user is denied.
    fn without_names(mut self, before: &Secrets) -> Problem {
        if self.denied.is_some() && before.files == Files::default() && !before.pairs.is_empty() {
            self.text.push_str(
                "; the running program names no files that it has read as root, so let the user read it, or restart",
            );
        }
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", crate::args::Shown(&self.source), self.text)
    }
}

/// Returns the name of a file as it is published and logged; empty if there is none.
pub(super) fn name_of(path: Option<&PathBuf>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

impl Kept {
    /// Reads all secrets. If a pair or another file cannot be used, but was published before under the same names, that
    /// stays, and its problem is returned. Otherwise there are no secrets.
    fn read_secrets(&self, tls: &Tls) -> Result<(Secrets, Vec<Problem>), Problem> {
        let before = &self.secrets;
        let mut problems = Vec::new();
        let (mut pairs, mut keys) = (Vec::new(), Vec::new());
        if tls.dev {
            let known = before.pairs.iter().find(|pair| pair.source == GENERATED).filter(|pair| is_usable(pair));
            keys.push(String::new());
            pairs.push(match known {
                Some(pair) => pair.clone(),
                None => stored(GENERATED, &dev::pair(&host_name()).map_err(|error| Problem::new(GENERATED, error))?),
            });
        }
        for files in &tls.pairs {
            pairs.push(self.read_pair(files, &mut problems)?);
            keys.push(files.key.display().to_string());
        }
        let names = Files {
            keys,
            client_ca: name_of(tls.client_ca.as_ref()),
            ticket_key: name_of(tls.ticket_key.as_ref()),
            cookie_key: before.files.cookie_key.clone(),
        };
        let mut client_authorities = Vec::new();
        if let Some(path) = &tls.client_ca {
            let kept = (before.files.client_ca == names.client_ca).then_some(&before.client_authorities);
            let read = files::read_authorities(path);
            client_authorities =
                or_kept(read, kept, &format!("{} {}", files::CLIENT_CA, names.client_ca), &mut problems)?;
        }
        let mut ticket_seed = Secret::default();
        if let Some(path) = &tls.ticket_key {
            let kept = (before.files.ticket_key == names.ticket_key).then_some(&before.ticket_seed);
            let source = format!("{} {}", files::TICKET_KEY, names.ticket_key);
            ticket_seed = or_kept(files::read_seed(path), kept, &source, &mut problems)?;
        }
        let tickets = self.make_tickets(&ticket_seed).map_err(|text| Problem::new("session tickets", text))?;
        let cookie_key = before.cookie_key.clone();
        let of_authorities = |path: &PathBuf| format!("{} {}", files::CLIENT_CA, path.display());
        let source = tls.client_ca.as_ref().map_or("certificates".to_owned(), of_authorities);
        let secrets = Secrets { pairs, tickets, ticket_seed, client_authorities, cookie_key, files: names };
        try_all(&secrets, tls.rules.client_optional).map_err(|text| Problem::new(&source, text))?;
        Ok((secrets, problems))
    }

    /// Reads a pair, or returns the one that was published under the same names, and adds its problem.
    fn read_pair(&self, files: &PairFiles, problems: &mut Vec<Problem>) -> Result<StoredPair, Problem> {
        let source = files.certificate.display().to_string();
        let error = match files::read_pair(files) {
            Ok(pair) => return Ok(stored(&source, &pair)),
            Err(error) => error,
        };
        let named_source = format!("{} {source}", files::CERTIFICATE);
        let mut problem = Problem::of_file(&named_source, error);
        let before = &self.secrets;
        let named = |(at, known): &(usize, &StoredPair)| {
            known.source == source && before.files.keys.get(*at) == Some(&files.key.display().to_string())
        };
        let known = before.pairs.iter().enumerate().find(named).map(|(_, known)| known);
        let decoded = known.and_then(|known| Some((known, Pair::decode(&known.bytes.0).ok()?)));
        let Some((known, pair)) = decoded else { return Err(problem.without_names(before)) };
        if problem.denied.is_some() {
            match files::has_chain(files, &pair) {
                // A key belongs to one certificate: it has changed only if that has.
                Ok(true) => return Ok(known.clone()),
                Ok(false) => problem.denied = None,
                Err(error) => problem = Problem::of_file(&named_source, error),
            }
        }
        problems.push(problem);
        Ok(known.clone())
    }

    /// Makes the keys of session tickets for this time: of the seed, or of random numbers if there is none. No file is
    /// read, because the user may be unable to read it after the start.
    fn make_tickets(&self, seed: &Secret) -> Result<Secret, String> {
        let now_s = clock::unix_us() / SECOND_US;
        let keys = match seed.0.first_chunk() {
            Some(seed) => Keys::derived(seed, now_s),
            None => {
                let earlier = Keys::decode(&self.secrets.tickets.0);
                let random = || {
                    let mut secret = [0; KEY_BYTES];
                    entropy::fill(&mut secret).map(|()| secret)
                };
                Keys::random(now_s, earlier.as_ref(), random).map_err(|error| error.to_string())?
            }
        };
        let mut bytes = Vec::new();
        keys.encode(&mut bytes);
        Ok(Secret(bytes))
    }
}

impl Duties {
    /// Reads all secrets, and publishes them. `earlier`: the bytes of those before an upgrade.
    pub(super) fn begin_secrets(&mut self, earlier: Option<Vec<u8>>) -> Result<(), String> {
        let own = self.region.secrets().read().1;
        self.kept.secrets = own.as_deref().or(earlier.as_deref()).and_then(Secrets::decode).unwrap_or_default();
        self.kept.before = own;
        let tls = self.config.tls.clone();
        if !tls.has_certificate() {
            return Ok(());
        }
        let (secrets, problems) = self.kept.read_secrets(&tls).map_err(|problem| problem.to_string())?;
        self.follow_tls_files(&tls).map_err(|error| format!("cannot watch the certificates: {error}"))?;
        // These were read as root.
        files::unreadable(&tls).iter().for_each(|text| self.journal.line(Level::Info, "tls", format_args!("{text}")));
        problems.into_iter().filter(|one| one.denied.is_none()).for_each(|problem| self.doubt(problem, 0));
        self.publish_secrets(secrets)?;
        self.tell_faults(&Secrets::default());
        Ok(())
    }

    /// Logs the urgent faults of certificates that `before` does not have.
    fn tell_faults(&mut self, before: &Secrets) {
        let now_s = (clock::unix_us() / SECOND_US).cast_signed();
        for stored in self.kept.secrets.pairs.iter().filter(|pair| !before.pairs.contains(pair)) {
            let Ok(pair) = Pair::decode(&stored.bytes.0) else { continue };
            let chain = pair.chain().iter().map(|certificate| &**certificate);
            for finding in chain::examine(chain, now_s, |_| true).iter().filter(|finding| finding.is_urgent()) {
                let source = crate::args::Shown(&stored.source);
                self.journal.line(Level::Warn, "tls", format_args!("{source}: {finding}"));
            }
        }
        let Secrets { client_authorities, files, .. } = &self.kept.secrets;
        if *client_authorities != before.client_authorities {
            let source = crate::args::Shown(&files.client_ca);
            let findings = chain::examine_authorities(client_authorities.iter().map(Vec::as_slice), now_s);
            // Their validity is not verified.
            for finding in findings.iter().filter(|finding| matches!(finding.fault, Fault::NoAuthority(Some(_)))) {
                self.journal.line(Level::Warn, "tls", format_args!("{source}: {finding}"));
            }
        }
    }

    /// Returns the secrets that hold.
    pub(super) fn kept_secrets(&self) -> &Secrets {
        &self.kept.secrets
    }

    /// Publishes secrets if they differ from those that hold.
    pub(super) fn publish_secrets(&mut self, secrets: Secrets) -> Result<(), String> {
        let table = self.region.secrets();
        let bytes = secrets.encode();
        if table.read().1.as_deref() != Some(&bytes) {
            if !table.publish(&bytes) {
                let count = bytes.len();
                return Err(format!("the certificates and keys have {count} bytes; accepted: at most {SECRETS_BYTES}"));
            }
            // A refusal leaves them where the memory of the processes is.
            let _ = sys::shm::lock(table.current());
            self.published = true;
        }
        self.kept.secrets = secrets;
        Ok(())
    }

    /// Follows the files of certificates and keys, and no longer those that are not configured any more.
    pub(super) fn follow_tls_files(&mut self, tls: &Tls) -> std::io::Result<()> {
        let files: Vec<PathBuf> = files::all(tls).map(Path::to_path_buf).collect();
        for path in &files {
            let most = if tls.client_ca.as_ref() == Some(path) { CLIENT_AUTHORITY_FILE_BYTES } else { PAIR_FILE_BYTES };
            self.follow_file(path.clone(), file::read(path, most).ok(), most)?;
        }
        let own = self.config.file.clone();
        self.watch.iter_mut().for_each(|watch| {
            watch.retain(|path| own.as_deref() == Some(path) || files.iter().any(|file| file == path));
        });
        Ok(())
    }

    /// Tries whether the secrets of another configuration can be used. The error is the reason.
    pub(super) fn try_secrets(&self, tls: &Tls) -> Result<(), String> {
        if *tls == self.config.tls || !tls.has_certificate() {
            return Ok(());
        }
        self.kept.read_secrets(tls).map(drop).map_err(|problem| problem.to_string())
    }

    /// Uses the secrets of another configuration, which were tried before.
    pub(super) fn reload_secrets(&mut self, changed: bool) {
        if changed && self.config.tls.has_certificate() {
            self.read_secrets_again();
            let tls = self.config.tls.clone();
            if let Err(error) = self.follow_tls_files(&tls) {
                self.journal.line(Level::Err, "tls", format_args!("cannot watch the certificates: {error}"));
            }
        }
    }

    /// The file `changed` of the secrets has changed, or a person wants all to be read again (`None`). `patience_us`: the
    /// time for the other files of a pair to follow.
    pub(super) fn on_secret_change(&mut self, changed: Option<&Path>, patience_us: u64) {
        let tls = self.config.tls.clone();
        let before = self.kept.secrets.clone();
        match self.kept.read_secrets(&tls) {
            Ok((secrets, problems)) => {
                let (doubts, cleared): (Vec<Doubt>, Vec<Doubt>) = std::mem::take(&mut self.kept.doubts)
                    .into_iter()
                    .partition(|doubt| problems.iter().any(|problem| problem.source == doubt.source));
                self.kept.doubts = doubts;
                // A person who has read of the problem wants to know that it has gone.
                for doubt in cleared.iter().filter(|doubt| doubt.told_us.is_none()) {
                    let source = crate::args::Shown(&doubt.source);
                    self.journal.line(Level::Info, "tls", format_args!("{source}: can be used again"));
                }
                for problem in problems {
                    if problem.denied.is_none() || problem.denied.as_deref() == changed {
                        self.doubt(problem, patience_us);
                    } else if changed.is_none() {
                        self.journal.line(Level::Info, "tls", format_args!("{problem}"));
                    }
                }
                match self.publish_secrets(secrets) {
                    Ok(()) => self.tell_changes(&before),
                    Err(text) => self.doubt(Problem::new("certificates", text), 0),
                }
            }
            Err(problem) => self.doubt(problem, patience_us),
        }
    }

    /// Reads all secrets again for the person who asks for a reload, and logs each reason again.
    pub(super) fn read_secrets_again(&mut self) {
        self.kept.doubts.retain(|doubt| doubt.told_us.is_some());
        self.on_secret_change(None, 0);
    }

    /// Notes that files cannot be used. This is logged once, after some time.
    fn doubt(&mut self, problem: Problem, patience_us: u64) {
        let at_us = clock::monotonic_us().saturating_add(patience_us);
        let doubts = &mut self.kept.doubts;
        match doubts.iter_mut().find(|doubt| doubt.source == problem.source) {
            Some(doubt) if doubt.problem == problem.text && doubt.told_us.is_none() => {}
            Some(doubt) => {
                doubt.told_us = Some(doubt.told_us.unwrap_or(at_us));
                doubt.problem = problem.text;
            }
            None => doubts.push(Doubt { source: problem.source, problem: problem.text, told_us: Some(at_us) }),
        }
    }

    /// The time of the next `expire_secrets`, in microseconds.
    pub(super) fn secrets_us(&self) -> u64 {
        let doubts = self.kept.doubts.iter().filter_map(|doubt| doubt.told_us);
        doubts.min().unwrap_or(u64::MAX).min(self.rotation_us())
    }

    /// The time at which other keys of tickets are due, in microseconds of the monotonic clock.
    fn rotation_us(&self) -> u64 {
        let Some(keys) = Keys::decode(&self.kept.secrets.tickets.0) else { return u64::MAX };
        let now_s = clock::unix_us() / SECOND_US;
        if !keys.are_current(now_s) {
            return self.kept.rotate_us;
        }
        let left_us = (keys.end_s() - now_s).saturating_mul(SECOND_US);
        clock::monotonic_us().saturating_add(left_us)
    }

    /// Logs doubts whose time has come, and changes the keys of tickets.
    pub(super) fn expire_secrets(&mut self, now_us: u64) {
        let mut told = Vec::new();
        for doubt in self.kept.doubts.iter_mut().filter(|doubt| doubt.told_us.is_some_and(|at_us| at_us <= now_us)) {
            doubt.told_us = None;
            told.push(Problem::new(&doubt.source, &doubt.problem));
        }
        for problem in told {
            self.globals().add_global(Global::PairsRefused, 1);
            self.journal.line(Level::Err, "tls", format_args!("{problem}: the one before stays"));
        }
        if self.rotation_us() <= now_us {
            match self.kept.make_tickets(&self.kept.secrets.ticket_seed) {
                Ok(tickets) => {
                    let secrets = Secrets { tickets, ..self.kept.secrets.clone() };
                    if self.publish_secrets(secrets).is_ok() {
                        self.journal.line(
                            Level::Debug,
                            "tls",
                            format_args!("the keys of session tickets have changed"),
                        );
                    }
                }
                // The keys before still serve.
                Err(text) => {
                    self.kept.rotate_us = now_us.saturating_add(TICKET_RETRY_US);
                    self.doubt(Problem::new("session tickets", text), 0);
                }
            }
        }
    }

    /// Logs and counts the differences to the secrets before.
    fn tell_changes(&mut self, before: &Secrets) {
        let now = self.kept.secrets.clone();
        let mut lines = Vec::new();
        for pair in now.pairs.iter().filter(|pair| !before.pairs.contains(pair)) {
            let names = Pair::decode(&pair.bytes.0).map(|pair| pair.names().to_string()).unwrap_or_default();
            lines.push(format!("{}: another certificate is served, for {names}", crate::args::Shown(&pair.source)));
        }
        if now.client_authorities != before.client_authorities {
            let count = now.client_authorities.len();
            lines.push(format!("other authorities of clients: {count}; their sessions before cannot be resumed"));
        }
        for line in lines {
            self.globals().add_global(Global::PairsReloaded, 1);
            self.journal.line(Level::Info, "tls", format_args!("{line}"));
        }
        self.tell_faults(before);
        if now.tickets != before.tickets {
            self.journal.line(Level::Info, "tls", format_args!("the keys of session tickets have changed"));
        }
    }

    /// True if a file has a part of the secrets.
    pub(super) fn is_secret(&self, path: &Path) -> bool {
        files::all(&self.config.tls).any(|file| file == path)
    }

    /// Gives an upgrade up: the secrets before hold again.
    pub(super) fn take_back_secrets(&self) {
        self.kept.before.iter().for_each(|bytes| _ = self.region.secrets().publish(bytes));
    }

    /// The secrets before an upgrade are not needed any more.
    pub(super) fn forget_secrets(&mut self) {
        self.kept.before = None;
    }
}

/// Tries whether a start could use the certificates and keys of a configuration. The error is the reason.
pub(in crate::process) fn check(tls: &Tls) -> Result<(), String> {
    if !tls.has_certificate() {
        return Ok(());
    }
    Kept::default().read_secrets(tls).map(drop).map_err(|problem| problem.to_string())
}

/// Reads the secrets of TLS while the user may still be root. They are empty if there are none, or if they cannot be used,
/// which is reported later.
pub(super) fn read_early(tls: &Tls) -> Secrets {
    let secrets = tls.has_certificate().then(|| Kept::default().read_secrets(tls).ok()).flatten();
    secrets.map(|(secrets, _)| secrets).unwrap_or_default()
}

/// The name of this machine; empty if it is not known.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// Returns the content of a file that was read, or else the content that was published under the same name, with the
/// problem noted. `kept`: that content; `None`: the name is another one.
fn or_kept<T: Clone>(
    read: Result<T, FileError>,
    kept: Option<&T>,
    source: &str,
    problems: &mut Vec<Problem>,
) -> Result<T, Problem> {
    read.or_else(|error| {
        let problem = Problem::of_file(source, error);
        let Some(kept) = kept else { return Err(problem) };
        problems.push(problem);
        Ok(kept.clone())
    })
}

/// Tries whether workers can use the secrets.
fn try_all(secrets: &Secrets, optional: bool) -> Result<(), String> {
    let pairs = secrets.pairs.iter().map(|pair| Pair::decode(&pair.bytes.0).map(Arc::new));
    let pairs = pairs.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let authorities: Vec<_> = secrets.client_authorities.iter().map(|der| der.clone().into()).collect();
    let settings = Settings {
        pairs: &pairs,
        clients: (!authorities.is_empty()).then_some(Authorities { certificates: &authorities, optional }),
        strict_sni: false,
        minimum: server::Version::Tls12,
        alpn: &[],
        keys: &Keys::decode(&secrets.tickets.0).ok_or("there are no keys of session tickets")?,
        key_log: None,
    };
    server::Config::new(&settings).map(drop).map_err(|error| error.to_string())
}

fn stored(source: &str, pair: &Pair) -> StoredPair {
    let mut bytes = Vec::new();
    pair.encode(&mut bytes);
    StoredPair { source: source.to_owned(), bytes: Secret(bytes) }
}

fn is_usable(pair: &StoredPair) -> bool {
    Pair::decode(&pair.bytes.0).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::args::Options;
    use crate::config;
    use crate::limits::TICKET_PERIOD_S;
    use crate::process::duties::Previous;
    use crate::shared::Region;
    use crate::tls::tickets;

    #[test]
    fn a_file_that_a_program_without_names_has_read_as_root_is_refused_with_the_way_on() {
        let problem = || Problem { denied: Some("a.key".into()), ..Problem::new("a.pem", "a.key: denied") };
        let pairs = vec![StoredPair { source: "a.pem".into(), bytes: Secret::default() }];
        let mut before = Secrets { pairs, ..Secrets::default() };
        let text = problem().without_names(&before).text;
        assert!(text.starts_with("a.key: denied; ") && text.ends_with("let the user read it, or restart"), "{text}");
        before.files.keys.push("b.key".into());
        assert_eq!(problem().without_names(&before).text, "a.key: denied");
    }

    fn duties(tls: Tls) -> Duties {
        let mut config = config::resolve(Options::default()).unwrap();
        config.tls = tls;
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let begun = Duties::begin(config, Options::default(), None, address, Region::private(), Previous::default());
        begun.map_err(|failure| failure.message).unwrap()
    }

    fn keys_of(duties: &Duties) -> Keys {
        Keys::decode(&duties.kept.secrets.tickets.0).unwrap()
    }

    #[test]
    fn keys_of_tickets_change_although_their_file_cannot_be_read_any_more() {
        let path = std::env::temp_dir().join(format!("zzz-ticket-key-{}", std::process::id()));
        std::fs::write(&path, [7; 80]).unwrap();
        let mut duties = duties(Tls { dev: true, ticket_key: Some(path.clone()), ..Tls::default() });
        std::fs::remove_file(path).unwrap();
        let mut past = Vec::new();
        Keys::derived(&tickets::seed(&[7; 80]).unwrap(), 0).encode(&mut past);
        duties.kept.secrets.tickets = Secret(past);
        duties.expire_secrets(clock::monotonic_us());
        let now_s = clock::unix_us() / SECOND_US;
        assert_eq!(keys_of(&duties), Keys::derived(&tickets::seed(&[7; 80]).unwrap(), now_s));
        // A program after an upgrade has them too.
        let published = Secrets::decode(&duties.region.secrets().read().1.unwrap()).unwrap();
        assert_eq!(published, duties.kept.secrets);
        // A reload derives them of the same seed, and names the file.
        let (secrets, problems) = duties.kept.read_secrets(&duties.config.tls).map_err(|error| error.text).unwrap();
        assert_eq!((secrets, problems.len()), (published, 1));
    }

    #[test]
    fn random_keys_of_tickets_are_due_when_their_period_ends_and_the_last_one_stays() {
        let mut duties = duties(Tls { dev: true, ..Tls::default() });
        let now_s = clock::unix_us() / SECOND_US;
        let left_us = keys_of(&duties).end_s().saturating_sub(now_s) * SECOND_US;
        let due_us = duties.secrets_us().saturating_sub(clock::monotonic_us());
        assert!(due_us.abs_diff(left_us) < 5 * SECOND_US, "{due_us} of {left_us}");
        // The keys of the period before are those that were made then.
        let mut next = 0;
        let made = Keys::random(now_s - TICKET_PERIOD_S, None, || {
            next += 1;
            Ok::<_, ()>([next; KEY_BYTES])
        });
        let (mut before, mut after) = (Vec::new(), Vec::new());
        made.unwrap().encode(&mut before);
        duties.kept.secrets.tickets = Secret(before.clone());
        assert_eq!(duties.secrets_us(), 0, "they are due");
        duties.expire_secrets(clock::monotonic_us());
        keys_of(&duties).encode(&mut after);
        let secrets = 8..8 + 2 * KEY_BYTES;
        assert_eq!(after[secrets], before[8 + KEY_BYTES..], "the last one and the current one are known");
        let published = Secrets::decode(&duties.region.secrets().read().1.unwrap()).unwrap();
        assert_eq!(published.tickets.0, after, "all workers have them");
    }

    #[test]
    fn a_reason_is_logged_and_counted_again_only_for_a_reload() {
        let path = std::env::temp_dir().join(format!("zzz-refused-{}", std::process::id()));
        std::fs::write(&path, [7; 80]).unwrap();
        let mut duties = duties(Tls { dev: true, ticket_key: Some(path.clone()), ..Tls::default() });
        let refused = |duties: &mut Duties| {
            duties.expire_secrets(clock::monotonic_us());
            duties.globals().get_global(Global::PairsRefused)
        };
        for _ in 0..3 {
            duties.doubt(Problem::new("session tickets", "no random numbers"), 0);
            assert_eq!(refused(&mut duties), 1);
        }
        std::fs::remove_file(path).unwrap();
        for count in 2..4 {
            duties.read_secrets_again();
            assert_eq!(refused(&mut duties), count);
            duties.on_secret_change(Some(Path::new("another")), 0);
            assert_eq!(refused(&mut duties), count);
        }
    }
}
