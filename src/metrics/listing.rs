//! The backends as metrics show them: a series for each backend, and one for each of its addresses.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// The level of detail about a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// The counts of all its addresses together.
    #[default]
    Backend,
    /// The counts of each address.
    Address,
}

impl Detail {
    /// All kinds, with the names that the command line accepts.
    pub const NAMES: [(&'static str, Detail); 2] = [("backend", Detail::Backend), ("address", Detail::Address)];
}

/// A slot as long as it is one owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The slot.
    pub slot: usize,
    /// The generation of the slot's owner.
    pub generation: u64,
}

/// A certificate that clients are served with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its name for people.
    pub name: String,
    /// When it expires, in seconds since 1970.
    pub expiry_s: u64,
}

/// A backend, or an address of one, with series of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Series {
    /// The labels as they are written.
    pub(super) labels: String,
    /// The slots that count for it: its current addresses first, then its former ones.
    pub(super) places: Vec<Place>,
    /// The number of current addresses among these.
    pub(super) current: usize,
    /// It is a name, which may have any number of addresses.
    pub(super) is_name: bool,
    /// The configured weight, if it has an address.
    pub(super) weight: Option<u64>,
    /// Requests that each address may have at once, if there is a limit.
    pub(super) max: Option<u64>,
}

impl Series {
    fn new(labels: String) -> Series {
        Series { labels, places: Vec::new(), current: 0, is_name: false, weight: None, max: None }
    }
}

/// All series of backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub(super) detail: Detail,
    /// One for each backend.
    pub(super) backends: Vec<Series>,
    /// One for each address, and one for each backend that has none.
    pub(super) addresses: Vec<Series>,
    /// The certificates for clients.
    pub(super) certificates: Vec<Certificate>,
    /// The index of each backend in the list, by name.
    known: BTreeMap<String, usize>,
}

impl Listing {
    /// A listing of no backends.
    pub fn new(detail: Detail) -> Listing {
        Listing { detail, ..Listing::default() }
    }

    /// Returns the certificates for clients.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Returns the same listing with other certificates for clients.
    pub fn with_certificates(self, certificates: Vec<Certificate>) -> Listing {
        Listing { certificates, ..self }
    }

    fn backend(&mut self, name: &str) -> &mut Series {
        let next = self.backends.len();
        let at = *self.known.entry(name.to_owned()).or_insert(next);
        if at == next {
            self.backends.push(Series::new(format!("backend=\"{}\"", Escaped(name))));
        }
        &mut self.backends[at]
    }

    /// Adds an address of a backend. `max` 0 is no limit.
    pub fn add(&mut self, name: &str, address: &str, place: Place, weight: u16, max: u32) {
        let backend = self.backend(name);
        backend.places.push(place);
        backend.current += 1;
        backend.is_name |= address != name;
        backend.weight = Some(weight.into());
        backend.max = (max > 0).then_some(max.into());
        let mut one = Series::new(format!("{},address=\"{}\"", backend.labels, Escaped(address)));
        (one.places, one.current) = (vec![place], 1);
        self.addresses.push(one);
    }

    /// Adds a backend that has no address.
    pub fn add_unresolved(&mut self, name: &str) {
        let backend = self.backend(name);
        backend.is_name = true;
        let series = backend.clone();
        self.addresses.push(series);
    }

    /// Adds an address that a backend had before. To be called after all addresses were added.
    pub fn add_gone(&mut self, name: &str, place: Place) {
        if let Some(&at) = self.known.get(name) {
            self.backends[at].places.push(place);
        }
    }
}

/// A label's value as it is written.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_name_are_one_backend() {
        let mut listing = Listing::new(Detail::Backend);
        let place = |slot| Place { slot, generation: 1 };
        listing.add("a", "10.0.0.1:80", place(0), 2, 5);
        listing.add("b", "10.0.0.2:80", place(1), 1, 0);
        listing.add("a", "10.0.0.3:80", place(2), 2, 5);
        listing.add_unresolved("c");
        listing.add_gone("a", place(9));
        listing.add_gone("z", place(8));
        let backend = &listing.backends[0];
        assert_eq!((backend.places.len(), backend.current, backend.max), (3, 2, Some(5)));
        assert_eq!(listing.backends.len(), 3);
        let labels: Vec<&str> = listing.addresses.iter().map(|one| one.labels.as_str()).collect();
        assert_eq!(labels[2..], ["backend=\"a\",address=\"10.0.0.3:80\"", "backend=\"c\""]);
    }
}
