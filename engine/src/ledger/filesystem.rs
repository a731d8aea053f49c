//! What kind of file system a ledger would stand on, and whether its locks and syncs can be believed.

use std::fmt;
use std::os::fd::AsFd;

/// How far a file system can be trusted with a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// A disk of this host: locks exclude, and what was synced survives a power cut.
    Local,
    /// Memory of this host: locks exclude, and everything is gone with the next boot.
    Volatile,
    /// An overlay, as in a container image: what is written may vanish together with the container.
    Layered,
    /// A program answers for the file system (FUSE, virtiofs), and only it knows what a sync means.
    Userspace,
    /// Other hosts may have the same file open. Locks and caches between hosts cannot be relied upon, so that two
    /// hosts could hand out one address; ledgers there are refused.
    Network,
}

/// The file system under a ledger, as far as the caller may want to warn about it.
///
/// ```
/// use whereabouts_engine::{FileSystem, Trust};
///
/// assert_eq!(FileSystem::from_magic(0x6969).trust(), Trust::Network);
/// assert_eq!(FileSystem::from_magic(0x6969).to_string(), "NFS");
/// // What is unknown is taken for a disk: there are too many of them to list.
/// assert_eq!(FileSystem::from_magic(0x1234_5678).trust(), Trust::Local);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileSystem {
    name: &'static str,
    trust: Trust,
}

/// The numbers of `statfs(2)` that mean something other than a disk of this host. They are part of the kernel's
/// interface and never change; some only appear in the sources of the file system in question.
const KNOWN: &[(u32, &str, Trust)] = &[
    (0x0102_1994, "tmpfs", Trust::Volatile),
    (0x8584_58f6, "ramfs", Trust::Volatile),
    (0x794c_7630, "overlay", Trust::Layered),
    (0x6163_6673, "aufs", Trust::Layered),
    (0x6573_5546, "FUSE", Trust::Userspace),
    (0x786f_4256, "vboxsf", Trust::Userspace),
    (0x0000_6969, "NFS", Trust::Network),
    (0xff53_4d42, "CIFS", Trust::Network),
    (0xfe53_4d42, "SMB2", Trust::Network),
    (0x0000_517b, "SMB", Trust::Network),
    (0x0000_564c, "NCP", Trust::Network),
    (0x0102_1997, "9p", Trust::Network),
    (0x00c3_6400, "Ceph", Trust::Network),
    (0x0116_1970, "GFS2", Trust::Network),
    (0x7461_636f, "OCFS2", Trust::Network),
    (0x0bd0_0bd0, "Lustre", Trust::Network),
    (0x5346_414f, "AFS", Trust::Network),
    (0x6b41_4653, "kAFS", Trust::Network),
    (0x7375_7245, "Coda", Trust::Network),
    (0x4750_4653, "GPFS", Trust::Network),
    (0xaad7_aaea, "PanFS", Trust::Network),
    (0xa501_fcf5, "VxFS cluster", Trust::Network),
    (0x1983_0326, "BeeGFS", Trust::Network),
    (0x2003_0528, "OrangeFS", Trust::Network),
    (0x6e66_7364, "nfsd", Trust::Network),
];

// === impl FileSystem ===

impl FileSystem {
    /// The file system whose `statfs(2)` type is `magic`.
    pub fn from_magic(magic: u32) -> Self {
        let known = KNOWN.iter().find(|(number, ..)| *number == magic);
        match known {
            Some(&(_, name, trust)) => Self { name, trust },
            None => Self::local(),
        }
    }

    /// The file system on which `file` is.
    pub(crate) fn of(file: impl AsFd) -> std::io::Result<Self> {
        #[cfg(test)]
        if let Some(pretended) = pretence::of(&file) {
            return Ok(pretended);
        }
        let statfs = rustix::fs::fstatfs(file)?;
        // The field is signed on some architectures and 64 bits wide on most; the number itself always has 32 bits.
        let magic = statfs.f_type as u32;
        Ok(Self::from_magic(magic))
    }

    pub(crate) fn local() -> Self {
        Self { name: "a local disk", trust: Trust::Local }
    }

    /// Its name as people know it.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// How far it can be trusted with a ledger.
    pub fn trust(self) -> Trust {
        self.trust
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// Files that a test says are elsewhere: a network file system takes a server, and a kernel that knows it.
#[cfg(test)]
pub(super) mod pretence {
    use std::cell::RefCell;
    use std::os::fd::AsFd;
    use std::path::Path;

    use super::FileSystem;

    thread_local! {
        static PRETENDED: RefCell<Vec<((u64, u64), FileSystem)>> = const { RefCell::new(Vec::new()) };
    }

    /// From now on, and in this thread, the file or folder of that name is on `file_system`, however it is opened.
    pub(in crate::ledger) fn say(path: &Path, file_system: FileSystem) {
        let file = std::fs::File::open(path).unwrap();
        PRETENDED.with_borrow_mut(|pretended| pretended.push((identity(&file), file_system)));
    }

    pub(super) fn of(file: &impl AsFd) -> Option<FileSystem> {
        let wanted = identity(file);
        PRETENDED.with_borrow(|pretended| pretended.iter().find(|(file, _)| *file == wanted).map(|(_, what)| *what))
    }

    fn identity(file: &impl AsFd) -> (u64, u64) {
        let stat = rustix::fs::fstat(file).unwrap();
        (stat.st_dev, stat.st_ino)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_numbers() {
        // From linux/magic.h and the sources of those that are not in it.
        for (magic, name) in [
            (0x6969, "NFS"),
            (0xff53_4d42, "CIFS"),
            (0xfe53_4d42, "SMB2"),
            (0x517b, "SMB"),
            (0x0102_1997, "9p"),
            (0x00c3_6400, "Ceph"),
            (0x0116_1970, "GFS2"),
            (0x7461_636f, "OCFS2"),
            (0x0bd0_0bd0, "Lustre"),
            (0x5346_414f, "AFS"),
        ] {
            let found = FileSystem::from_magic(magic);
            assert_eq!((found.name(), found.trust()), (name, Trust::Network));
        }
    }

    #[test]
    fn disks_are_trusted_and_memory_is_told_apart() {
        for (name, magic) in [
            ("ext4", 0xef53),
            ("xfs", 0x5846_5342),
            ("btrfs", 0x9123_683e),
            ("zfs", 0x2fc1_2fc1),
            ("f2fs", 0xf2f5_2010),
        ] {
            assert_eq!(FileSystem::from_magic(magic).trust(), Trust::Local, "{name}");
        }
        assert_eq!(FileSystem::from_magic(0x0102_1994).trust(), Trust::Volatile);
        assert_eq!(FileSystem::from_magic(0x794c_7630).trust(), Trust::Layered);
        assert_eq!(FileSystem::from_magic(0x6573_5546).trust(), Trust::Userspace);
    }

    #[test]
    fn no_number_is_listed_twice() {
        let mut numbers: Vec<u32> = KNOWN.iter().map(|(number, ..)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), KNOWN.len());
    }
}
