//! The CA certificates to trust, read from files.
//!
//! Only `--ca-file` if it is given; otherwise `SSL_CERT_FILE` and `SSL_CERT_DIR`, both if both are set;
//! otherwise the first file at the paths of known systems, or else the first such directory. The system's roots
//! never replace a source that was given by name. Every searched place is recorded with its result, for the
//! error message.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::limits::{ROOT_DIRECTORIES, ROOT_DIRECTORY_FILES, ROOT_FILE_BYTES, ROOTS};
use crate::sys;

/// Bundles at the paths that systems use, the most common first.
const SYSTEM_FILES: [&str; 12] = [
    "/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Arch, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL, Fedora
    "/etc/pki/tls/certs/ca-bundle.crt",                  // older RHEL
    "/var/lib/ca-certificates/ca-bundle.pem",            // SUSE
    "/etc/ssl/ca-bundle.pem",                            // older SUSE
    "/etc/ssl/cert.pem",                                 // Alpine, FreeBSD, OpenBSD, macOS
    "/usr/local/share/certs/ca-root-nss.crt",            // older FreeBSD
    "/etc/openssl/certs/ca-certificates.crt",            // NetBSD
    "/opt/homebrew/etc/ca-certificates/cert.pem",        // Homebrew
    "/usr/local/etc/ca-certificates/cert.pem",           // Homebrew on Intel
    "/opt/homebrew/etc/openssl@3/cert.pem",              // Homebrew's OpenSSL
    "/usr/local/etc/openssl@3/cert.pem",                 // the same on Intel
];

/// Directories of certificates, a file each.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/openssl/certs"];

/// The option that names a file of roots.
const CA_FILE: &str = "--ca-file";

/// The places to search.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--ca-file`.
    pub ca_file: Option<PathBuf>,
    /// The variable `SSL_CERT_FILE`.
    pub ssl_cert_file: Option<OsString>,
    /// The variable `SSL_CERT_DIR`: directories with colons between them.
    pub ssl_cert_dir: Option<OsString>,
}

impl Sources {
    /// The option as given and the variables as they are set; an empty one counts as not set.
    pub fn from_environment(ca_file: Option<&Path>) -> Sources {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Sources {
            ca_file: ca_file.map(Path::to_path_buf),
            ssl_cert_file: variable("SSL_CERT_FILE"),
            ssl_cert_dir: variable("SSL_CERT_DIR"),
        }
    }
}

/// A place that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file or directory.
    pub path: PathBuf,
    /// The option or variable that named it; `None` for the system's own.
    pub named_by: Option<&'static str>,
    /// The result.
    pub found: Found,
}

/// The result of a search at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// This many roots that no place before had, and this many that cannot be used as one.
    Roots(usize, usize),
    /// It could not be read.
    Unreadable(io::ErrorKind),
    /// The file is not PEM up to its end.
    NotPem,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.named_by {
            write!(f, "{name} ")?;
        }
        write!(f, "{} ", self.path.display())?;
        match self.found {
            Found::Roots(0, 0) => f.write_str("(no certificate)"),
            Found::Roots(0, unusable) => write!(f, "({unusable} unusable)"),
            Found::Roots(roots, _) => write!(f, "({roots} roots)"),
            Found::Unreadable(io::ErrorKind::InvalidInput) => f.write_str("(not a regular file)"),
            Found::Unreadable(kind) => write!(f, "({kind})"),
            Found::NotPem => f.write_str("(not PEM)"),
        }
    }
}

/// The roots, and the searched places.
#[derive(Clone, Debug)]
pub struct Roots {
    /// The roots for verification.
    pub(super) store: RootCertStore,
    /// The certificates as in `--ca-file`, for a server that uses one as its own.
    pub(super) certificates: BTreeSet<Vec<u8>>,
    /// Every place looked at, in that order.
    pub places: Vec<Place>,
}

/// No root was found, or the file asked for has something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRoots {
    /// Every place looked at, in that order.
    pub places: Vec<Place>,
}

impl fmt::Display for NoRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no certificate authorities to verify backends with; looked at ")?;
        for (n, place) in self.places.iter().enumerate() {
            write!(f, "{}{place}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl Roots {
    /// Returns no roots, for a configuration that accepts every certificate.
    pub fn none() -> Roots {
        Roots { store: RootCertStore::empty(), certificates: BTreeSet::new(), places: Vec::new() }
    }

    /// True if a root has this name, as encoded and without its header.
    pub fn has_name(&self, name: &[u8]) -> bool {
        self.store.roots.iter().any(|root| &*root.subject == name)
    }

    /// Reads the roots. Blocks on files, so it is done before serving.
    ///
    /// # Errors
    /// When there are none, or `--ca-file` cannot be read as PEM to its end.
    pub fn read(sources: &Sources) -> Result<Roots, NoRoots> {
        Roots::read_with(sources, &SYSTEM_FILES, &SYSTEM_DIRECTORIES)
    }

    fn read_with(sources: &Sources, files: &[&str], directories: &[&str]) -> Result<Roots, NoRoots> {
        let mut roots = Roots::none();
        if let Some(path) = &sources.ca_file {
            roots.add_file(path, Some(CA_FILE));
        } else if sources.ssl_cert_file.is_some() || sources.ssl_cert_dir.is_some() {
            if let Some(path) = &sources.ssl_cert_file {
                roots.add_file(Path::new(path), Some("SSL_CERT_FILE"));
            }
            for path in split(sources.ssl_cert_dir.as_deref()) {
                roots.add_directory(&path, Some("SSL_CERT_DIR"));
            }
        } else {
            roots.add_first(files, directories);
        }
        let broken = roots.places.iter().any(|place| {
            place.named_by == Some(CA_FILE) && !matches!(place.found, Found::Roots(found, _) if found > 0)
        });
        if roots.store.is_empty() || broken { Err(NoRoots { places: roots.places }) } else { Ok(roots) }
    }

    /// The roots of the first of the system's places that has any.
    fn add_first(&mut self, files: &[&str], directories: &[&str]) {
        for path in files {
            self.add_file(Path::new(path), None);
            if !self.store.is_empty() {
                return;
            }
        }
        for path in directories {
            self.add_directory(Path::new(path), None);
            if !self.store.is_empty() {
                return;
            }
        }
    }

    fn add_file(&mut self, path: &Path, named_by: Option<&'static str>) {
        let found = match read_file(path) {
            Ok(bytes) => self.add_pem(&bytes, named_by == Some(CA_FILE)),
            Err(error) => Found::Unreadable(error.kind()),
        };
        self.places.push(Place { path: path.to_path_buf(), named_by, found });
    }

    /// All regular files of a directory. Those that are no PEM are passed over: there are others
    /// beside certificates in such directories.
    fn add_directory(&mut self, path: &Path, named_by: Option<&'static str>) {
        let found = match std::fs::read_dir(path) {
            Ok(entries) => {
                let (mut roots, mut unusable) = (0, 0);
                let files = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file());
                for file in files.take(ROOT_DIRECTORY_FILES) {
                    let Ok(bytes) = read_file(&file) else { continue };
                    if let Found::Roots(more, bad) = self.add_pem(&bytes, false) {
                        (roots, unusable) = (roots + more, unusable + bad);
                    }
                }
                Found::Roots(roots, unusable)
            }
            Err(error) => Found::Unreadable(error.kind()),
        };
        self.places.push(Place { path: path.to_path_buf(), named_by, found });
    }

    /// True if the root that was added last is one of those before it. Certificates themselves are not kept for this,
    /// because every worker would have their memory.
    fn last_is_known(&self) -> bool {
        self.store.roots.split_last().is_some_and(|(last, before)| before.contains(last))
    }

    fn add_pem(&mut self, bytes: &[u8], strict: bool) -> Found {
        let (mut roots, mut unusable) = (0, 0);
        for certificate in CertificateDer::pem_slice_iter(bytes) {
            let Ok(certificate) = certificate else {
                // In a system's bundle, the readable part is used.
                if strict {
                    return Found::NotPem;
                }
                unusable += 1;
                continue;
            };
            if self.store.len() == ROOTS {
                continue;
            }
            if strict {
                self.certificates.insert(certificate.to_vec());
            }
            match self.store.add(certificate) {
                Ok(()) if self.last_is_known() => _ = self.store.roots.pop(),
                Ok(()) => roots += 1,
                Err(_) => unusable += 1,
            }
        }
        Found::Roots(roots, unusable)
    }
}

/// The directories of a list with colons between them.
fn split(list: Option<&OsStr>) -> impl Iterator<Item = PathBuf> {
    let paths = list.into_iter().flat_map(std::env::split_paths);
    paths.filter(|path| !path.as_os_str().is_empty()).take(ROOT_DIRECTORIES)
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = sys::file::read(path, ROOT_FILE_BYTES as usize)?;
    if bytes.len() as u64 > ROOT_FILE_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::issue::{Authority, Spec};

    /// A directory that goes when the test ends.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path = std::env::temp_dir().join(format!("zzz-roots-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Directory(path)
        }

        fn file(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn name(path: &Path) -> &str {
        path.to_str().unwrap()
    }

    #[test]
    fn the_option_goes_before_the_variables_and_they_before_the_system() {
        let directory = Directory::new("order");
        let pems = ["one", "two", "three", "four"].map(|name| Authority::new(name).pem());
        let option = directory.file("option", &pems[0]);
        let file = directory.file("file", &(pems[0].clone() + &pems[1]));
        let system = directory.file("system", &pems[3]);
        let inner = Directory(directory.0.join("inner"));
        std::fs::create_dir_all(&inner.0).unwrap();
        inner.file("a.pem", &pems[1]);
        inner.file("b.pem", &pems[2]);
        inner.file("README", "not a certificate");
        let mut sources = Sources {
            ca_file: Some(option.clone()),
            ssl_cert_file: Some(file.clone().into()),
            ssl_cert_dir: Some(inner.0.clone().into()),
        };
        let read = |sources: &Sources| Roots::read_with(sources, &["/nonexistent", name(&system)], &[]).unwrap();
        let found = |roots: &Roots| roots.places.iter().map(|place| place.found).collect::<Vec<_>>();
        assert_eq!(found(&read(&sources)), [Found::Roots(1, 0)]);
        sources.ca_file = None;
        let roots = read(&sources);
        // The second of the file stands in the directory again, and counts once.
        assert_eq!(found(&roots), [Found::Roots(2, 0), Found::Roots(1, 0)]);
        assert_eq!(roots.store.len(), 3);
        assert!(roots.certificates.is_empty(), "only an option makes a certificate trusted as it is");
        sources.ssl_cert_file = None;
        sources.ssl_cert_dir = None;
        let roots = read(&sources);
        assert_eq!(found(&roots), [Found::Unreadable(io::ErrorKind::NotFound), Found::Roots(1, 0)]);
    }

    #[test]
    fn takes_a_directory_of_the_system_where_there_is_no_bundle() {
        let directory = Directory::new("system");
        directory.file("a.pem", &Authority::new("one").pem());
        let roots = Roots::read_with(&Sources::default(), &["/nonexistent"], &[name(&directory.0), "/etc"]).unwrap();
        assert_eq!((roots.store.len(), roots.places.len()), (1, 2));
    }

    #[test]
    fn names_every_place_when_there_is_none() {
        let directory = Directory::new("none");
        let empty = directory.file("empty", "");
        let error = Roots::read_with(&Sources::default(), &["/nonexistent/a", name(&empty)], &["/nonexistent/b"]);
        let expected = format!(
            "no certificate authorities to verify backends with; looked at /nonexistent/a (entity not found), \
             {} (no certificate), /nonexistent/b (entity not found)",
            empty.display()
        );
        assert_eq!(error.unwrap_err().to_string(), expected);
    }

    #[test]
    fn the_system_does_not_replace_a_given_source() {
        let directory = Directory::new("asked");
        let system = directory.file("system", &Authority::new("one").pem());
        let missing = Some(directory.0.join("missing"));
        let read = |sources: Sources| Roots::read_with(&sources, &[name(&system)], &[]).unwrap_err().to_string();
        let text = read(Sources { ca_file: missing.clone(), ..Sources::default() });
        assert!(text.contains("looked at --ca-file ") && text.ends_with("missing (entity not found)"), "{text}");
        let ssl_cert_file = missing.clone().map(Into::into);
        let text = read(Sources { ssl_cert_file, ..Sources::default() });
        assert!(text.contains("looked at SSL_CERT_FILE "), "{text}");
        let text = read(Sources { ssl_cert_dir: missing.map(Into::into), ..Sources::default() });
        assert!(text.contains("looked at SSL_CERT_DIR "), "{text}");
    }

    #[test]
    fn a_ca_file_is_read_to_its_end_or_refused() {
        let directory = Directory::new("strict");
        let authority = Authority::new("one");
        let whole = authority.pem();
        let cut = directory.file("cut", &(whole.clone() + &whole[..whole.len() / 2]));
        let read = |ca_file: &Path| {
            let ca_file = Some(ca_file.to_path_buf());
            Roots::read_with(&Sources { ca_file, ..Sources::default() }, &[], &[])
        };
        assert_eq!(read(&cut).unwrap_err().places[0].found, Found::NotPem);
        let key = directory.file("key", &authority.issue(&Spec::new("a")).key_pem());
        assert_eq!(read(&key).unwrap_err().places[0].found, Found::Roots(0, 0));
        let odd = directory.file("odd", &crate::tls::issue::pem("CERTIFICATE", b"odd"));
        assert_eq!(read(&odd).unwrap_err().places[0].found, Found::Roots(0, 1));
        let large = directory.file("large", &" ".repeat(ROOT_FILE_BYTES as usize + 1));
        let Found::Unreadable(kind) = read(&large).unwrap_err().places[0].found else { panic!("it was read") };
        assert_eq!(kind, io::ErrorKind::FileTooLarge);
    }
}
