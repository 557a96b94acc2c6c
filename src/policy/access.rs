//! What can be done to a file, on the network, or of the kernel: the set of access kinds that a rule denies and a request asks for.
//!
//! The bits are the contract with the kernel half: they are append-only and never renumbered.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use serde::{Serialize, Serializer};

/// A set of access kinds, one bit each.
///
/// ```
/// use stockade::policy::Access;
///
/// let access = Access::READ | Access::WRITE;
/// assert!(access.contains(Access::READ));
/// assert_eq!(access.to_string(), "read,write");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Access(u32);

/// Every kind with its name, in the order of the bits.
const KINDS: [(&str, Access); 15] = [
    ("read", Access::READ),
    ("write", Access::WRITE),
    ("exec", Access::EXEC),
    ("create", Access::CREATE),
    ("delete", Access::DELETE),
    ("replace", Access::REPLACE),
    ("link", Access::LINK),
    ("metadata", Access::METADATA),
    ("mount", Access::MOUNT),
    ("connect", Access::CONNECT),
    ("send", Access::SEND),
    ("bind", Access::BIND),
    ("listen", Access::LISTEN),
    ("accept", Access::ACCEPT),
    ("call", Access::CALL),
];

impl Access {
    /// Reading the contents: open for reading in any way.
    pub const READ: Access = Access(1);
    /// Changing the contents: open for writing, truncate in any form. Connecting to a UNIX socket at a path, or sending to it.
    pub const WRITE: Access = Access(2);
    /// Running the file: execve and its kind, as the program, the interpreter or the loader, and executable mappings.
    pub const EXEC: Access = Access(4);
    /// Making a file, a directory or a link at this name, also by a rename.
    pub const CREATE: Access = Access(8);
    /// Removing the name: unlink, rename away.
    pub const DELETE: Access = Access(16);
    /// Renaming another file over it, or exchanging them.
    pub const REPLACE: Access = Access(32);
    /// Making a further hard link to the file.
    pub const LINK: Access = Access(64);
    /// Changing owner, mode, times or extended attributes.
    pub const METADATA: Access = Access(128);
    /// Mounting over the name.
    pub const MOUNT: Access = Access(256);

    /// Getting in touch with an address: connect, or a message that is sent there.
    pub const CONNECT: Access = Access(512);
    /// Sending anything to an address, also over a connection that there is already.
    pub const SEND: Access = Access(1024);
    /// Taking an address of this machine.
    pub const BIND: Access = Access(2048);
    /// Waiting for connections there.
    pub const LISTEN: Access = Access(4096);
    /// Taking one.
    pub const ACCEPT: Access = Access(8192);
    /// Making a system call.
    pub const CALL: Access = Access(16384);

    /// Every kind of access to a file; `all` in a file rule.
    pub const ALL: Access = Access(511);
    /// What is done to an address of the other end.
    pub const OUTWARDS: Access = Access(Access::CONNECT.0 | Access::SEND.0);
    /// What is done at an address of this end.
    pub const OWN: Access = Access(Access::BIND.0 | Access::LISTEN.0 | Access::ACCEPT.0);

    /// Every kind of access on the network.
    pub const NETWORK: Access = Access(Access::OUTWARDS.0 | Access::OWN.0);

    /// What is at a name is another thing afterwards.
    pub(crate) const CHANGES: Access = Access(
        Access::WRITE.0 | Access::CREATE.0 | Access::DELETE.0 | Access::REPLACE.0 | Access::MOUNT.0,
    );
    /// Done to a directory, these take all names below it away.
    pub(crate) const MOVES: Access = Access(Access::DELETE.0 | Access::REPLACE.0 | Access::MOUNT.0);

    /// The bits as the kernel half uses them.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The set with these bits; bits that are no access kind are dropped.
    #[must_use]
    pub fn from_bits_truncate(bits: u32) -> Self {
        let known = KINDS.iter().fold(0, |all, (_, kind)| all | kind.0);
        Access(bits & known)
    }

    /// The single kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        KINDS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, kind)| *kind)
    }

    /// Whether every kind of `other` is in this set; true for an empty `other`.
    #[must_use]
    pub const fn contains(self, other: Access) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether at least one kind is in both sets.
    #[must_use]
    pub const fn intersects(self, other: Access) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether no kind is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds that are not among these others.
    #[must_use]
    pub const fn without(self, others: Access) -> Access {
        Access(self.0 & !others.0)
    }

    /// The kinds in the set, each by itself, in the order of the bits.
    pub fn kinds(self) -> impl Iterator<Item = Access> {
        KINDS
            .iter()
            .map(|(_, kind)| *kind)
            .filter(move |kind| self.contains(*kind))
    }

    /// The names of the kinds in the set, in the order of the bits.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        KINDS
            .iter()
            .filter(move |(_, kind)| self.contains(*kind))
            .map(|(name, _)| *name)
    }
}

impl BitOr for Access {
    type Output = Access;

    fn bitor(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }
}

impl BitOrAssign for Access {
    fn bitor_assign(&mut self, other: Access) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Access {
    /// The names with commas between them; `none` for the empty set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (index, name) in self.names().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({self})")
    }
}

impl Serialize for Access {
    /// A list of names, as in a policy document.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_the_bit_of_the_kernel_half() {
        let bits: Vec<(&str, u32)> = KINDS.iter().map(|(n, k)| (*n, k.bits())).collect();
        assert_eq!(
            bits,
            [
                ("read", 1),
                ("write", 2),
                ("exec", 4),
                ("create", 8),
                ("delete", 16),
                ("replace", 32),
                ("link", 64),
                ("metadata", 128),
                ("mount", 256),
                ("connect", 512),
                ("send", 1024),
                ("bind", 2048),
                ("listen", 4096),
                ("accept", 8192),
                ("call", 16384),
            ]
        );
    }

    #[test]
    fn every_kind_is_of_one_side() {
        let sides = [Access::ALL, Access::OUTWARDS, Access::OWN, Access::CALL];
        let all = sides.into_iter().reduce(|a, b| a | b);
        assert_eq!(all, Some(Access::from_bits_truncate(u32::MAX)));
        for one in sides {
            assert_eq!(one.kinds().reduce(|a, b| a | b), Some(one));
        }
        let sides = sides.map(|side| side.kinds().count());
        assert_eq!(sides.iter().sum::<usize>(), KINDS.len());
    }

    #[test]
    fn unknown_bits_are_dropped() {
        assert_eq!(Access::from_bits_truncate(u32::MAX).bits(), 32767);
        assert_eq!(Access::from_bits_truncate(1 << 15), Access::default());
    }

    #[test]
    fn names_are_in_bit_order_and_printed_with_commas() {
        let access = Access::METADATA | Access::READ;
        assert_eq!(access.names().collect::<Vec<_>>(), ["read", "metadata"]);
        assert_eq!(access.to_string(), "read,metadata");
        assert_eq!(Access::default().to_string(), "none");
        assert_eq!(format!("{access:?}"), "Access(read,metadata)");
    }

    #[test]
    fn every_name_leads_back_to_its_kind() {
        for (name, kind) in KINDS {
            assert_eq!(Access::from_name(name), Some(kind));
        }
        assert_eq!(Access::from_name("all"), None);
    }
}
