//! The spool: what must not be lost on a day when the ledger cannot be written.
//!
//! A DEL has to succeed when the disk is full. A reserve is taken while there is room, every byte of it written once, so
//! that writing into it again needs nothing from the file system. Whoever opens the ledger next carries out what is in
//! the spool and empties it.
//!
//! The file is a header of 32 bytes and then records, all numbers little-endian:
//!
//! | header | bytes | record | bytes |
//! |---|---|---|---|
//! | `wbspool1` | 8 | length of the content | 4 |
//! | generation | 8 | CRC-32 of generation, length and content | 4 |
//! | CRC-32 of both | 4 | content | length |
//! | zero | 12 | | |
//!
//! The records end where no checksum fits any more. To empty the spool is to raise the generation and to clear the rest of
//! its sector, in one write: no older record fits any more, although the bytes of later ones are still there. A record
//! that was torn by a crash does not fit either; nobody was told that it is safe. A first sector with nothing but the
//! header is an empty spool.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::file::{LedgerFile, create_folder, with_suffix};
use super::queue::{Lockable, Share, deadline_after, lock};

/// A spool, locked against all others.
///
/// ```
/// use std::time::Duration;
/// use whereabouts_engine::{LedgerFile, OpenOptions, Spool};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let ledger = folder.path().join("ledger.redb");
/// // On a good day:
/// Spool::reserve(&LedgerFile::open(&OpenOptions::new(&ledger))?)?;
///
/// // On a bad day, when the ledger cannot be written:
/// Spool::open(&ledger, Duration::from_secs(1))?.append(b"release sandbox-1 eth0")?;
///
/// // And on the next good one:
/// let mut spool = Spool::open(&ledger, Duration::from_secs(1))?;
/// assert_eq!(spool.read_all()?.records, [b"release sandbox-1 eth0"]);
/// spool.clear()?;
/// assert!(spool.read_all()?.records.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    /// Its lock is held as long as it is open, and its writes return when they are durable (`O_DSYNC`).
    file: Arc<Lockable>,
}

/// What a spool holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spooled {
    /// The records in the order in which they were appended.
    pub records: Vec<Vec<u8>>,
    /// How many places between records are damaged: what stood there is lost.
    pub n_damaged: usize,
    /// How many bytes the file is long, header included.
    pub room: u64,
    /// How many of them are used, header included.
    pub used: u64,
}

/// Why the spool cannot be used. Every text names the file and a cure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// There is no spool: none was reserved while there was room.
    #[error("there is no spool {}: it is created when the ledger is first opened with room on the disk", .path.display())]
    Missing {
        /// The spool.
        path: PathBuf,
    },

    /// Another process holds it.
    #[error("another process has been using {} for longer than {} ms: see who it is with `fuser -v {}`",
        .path.display(), .waited.as_millis(), .path.display())]
    Busy {
        /// The spool.
        path: PathBuf,
        /// How long this one has waited.
        waited: Duration,
    },

    /// The reserve is used up, and the disk has no room for more.
    #[error("{} is full and there is no room on the disk: free some room, and any command that can open the ledger will \
             empty the spool", .path.display())]
    Full {
        /// The spool.
        path: PathBuf,
    },

    /// A record is longer than the spool takes.
    #[error("a record of {len} bytes is too long for {}, which takes at most {most}", .path.display())]
    TooLong {
        /// The spool.
        path: PathBuf,
        /// How long the record is, in bytes.
        len: usize,
        /// How long it may be, in bytes.
        most: usize,
    },

    /// The header is not that of a spool.
    #[error(
        "{} is damaged: whoever opens the ledger to write sets it aside and makes a new one; the addresses whose release \
         it held are freed by the next GC",
        .path.display()
    )]
    Damaged {
        /// The spool.
        path: PathBuf,
    },

    /// The operating system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// The spool.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// How many bytes are reserved: some five hundred releases, more than a host has sandboxes.
const RESERVE: usize = 64 << 10;
const MAGIC: &[u8; 8] = b"wbspool1";
const HEADER_LEN: usize = 32;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
const RECORD_HEADER_LEN: usize = 8;
/// The longest content of a record, in bytes: a release names a sandbox, an interface and a network.
const LONGEST: usize = 4096;
/// How long another process that makes the spool is waited for: it writes the reserve and syncs it.
const CREATE_WAIT: Duration = Duration::from_secs(2);

// === impl Spool ===

impl Spool {
    /// Takes the reserve, if that was not done before: one look at the file when it was, and what is in it is the answer.
    /// For every open of the ledger to ask. A spool that is damaged is set aside, because nothing could be queued in it:
    /// the ledger is asked for because whoever has it is alone, and two must not do that at once.
    ///
    /// # Errors
    /// [`SpoolError::Io`], also when the disk is full already.
    pub fn reserve(ledger: &LedgerFile) -> Result<Spooled, SpoolError> {
        Self::reserve_beside(ledger.path())
    }

    fn reserve_beside(ledger: &Path) -> Result<Spooled, SpoolError> {
        match Self::peek(ledger) {
            Err(SpoolError::Missing { .. }) => {}
            Err(error @ SpoolError::Damaged { .. }) => {
                let path = with_suffix(ledger, ".spool");
                let aside = with_suffix(&path, ".damaged");
                match fs::rename(&path, &aside) {
                    Ok(()) => tracing::error!(%error, aside = %aside.display(), "the spool is set aside"),
                    Err(source) => return Err(SpoolError::Io { path, action: "set aside", source }),
                }
            }
            peeked => return peeked,
        }
        Self::create(ledger)?;
        Ok(Spooled::default())
    }

    /// Makes a spool beside a ledger, and its folder, if there is none yet. Nobody needs to be alone for that.
    ///
    /// # Errors
    /// [`SpoolError::Io`], also when the disk is full.
    pub fn create(ledger: &Path) -> Result<(), SpoolError> {
        let path = with_suffix(ledger, ".spool");
        let folder = folder_of(&path);
        let temporary = with_suffix(&path, ".new");
        let io = |source| SpoolError::Io { path: path.clone(), action: "reserve", source };
        create_folder(folder).map_err(io)?;
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&temporary).map_err(io)?;
        let file = Arc::new(Lockable::new(file));
        // Whoever has the lock is the only one to finish this file. Another one may have done so meanwhile.
        if !lock(&file, Share::Alone, deadline_after(CREATE_WAIT)).map_err(io)? {
            return Err(SpoolError::Busy { path: temporary, waited: CREATE_WAIT });
        }
        let create = || {
            if fs::symlink_metadata(&path).is_ok() {
                return match fs::remove_file(&temporary) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                };
            }
            file.set_permissions(Permissions::from_mode(0o600))?;
            // Zeros are written out rather than promised: a promised block still needs room for its entry when it is
            // first written to.
            let mut content = empty_sector(1).to_vec();
            content.resize(RESERVE, 0);
            file.write_all_at(&content, 0)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(folder)?.sync_all()
        };
        let result = create();
        if result.is_err() {
            // The name stays: somebody may be waiting for the lock of this very file.
            let _ = file.set_len(0);
        }
        result.map_err(io)
    }

    /// Opens the spool of the ledger at `ledger`, waiting `wait` at most for others to let go of it.
    ///
    /// # Errors
    /// [`SpoolError::Missing`], [`SpoolError::Busy`] or [`SpoolError::Io`].
    pub fn open(ledger: &Path, wait: Duration) -> Result<Self, SpoolError> {
        let path = with_suffix(ledger, ".spool");
        let flags = rustix::fs::OFlags::DSYNC.bits().cast_signed();
        let file = match File::options().read(true).write(true).custom_flags(flags).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SpoolError::Missing { path }),
            Err(source) => return Err(SpoolError::Io { path, action: "open", source }),
            Ok(file) => Arc::new(Lockable::new(file)),
        };
        match lock(&file, Share::Alone, deadline_after(wait)) {
            Ok(true) => Ok(Self { path, file }),
            Ok(false) => Err(SpoolError::Busy { path, waited: wait }),
            Err(source) => Err(SpoolError::Io { path, action: "lock", source }),
        }
    }

    /// What the spool of the ledger at `ledger` holds, without waiting for anybody. A record that is just being written
    /// may be missed.
    ///
    /// # Errors
    /// [`SpoolError::Missing`], [`SpoolError::Damaged`] or [`SpoolError::Io`].
    pub fn peek(ledger: &Path) -> Result<Spooled, SpoolError> {
        let path = with_suffix(ledger, ".spool");
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SpoolError::Missing { path }),
            Err(source) => return Err(SpoolError::Io { path, action: "open", source }),
            Ok(file) => Arc::new(Lockable::new(file)),
        };
        Self { path, file }.read_all()
    }

    /// Adds a record. When this returns, the record is durable.
    ///
    /// # Errors
    /// [`SpoolError::Full`] when neither reserve nor disk has room; [`SpoolError::TooLong`] above 4096 bytes.
    pub fn append(&mut self, record: &[u8]) -> Result<(), SpoolError> {
        if record.len() > LONGEST || record.is_empty() {
            return Err(SpoolError::TooLong { path: self.path.clone(), len: record.len(), most: LONGEST });
        }
        let (content, generation) = self.content()?;
        let used = records_in(&content, generation).used;
        let mut bytes = Vec::with_capacity(RECORD_HEADER_LEN + record.len());
        let len = u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes();
        bytes.extend_from_slice(&len);
        bytes.extend_from_slice(&checksum_of(generation, len, record).to_le_bytes());
        bytes.extend_from_slice(record);
        self.file.write_all_at(&bytes, used).map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SpoolError::Full { path: self.path.clone() },
            _ => self.io("write to", source),
        })
    }

    /// All records, oldest first. They stay until [`Spool::clear`].
    ///
    /// # Errors
    /// [`SpoolError::Damaged`] when the header does not fit, or [`SpoolError::Io`].
    pub fn read_all(&mut self) -> Result<Spooled, SpoolError> {
        if let Some(empty) = self.at_a_glance().map_err(|source| self.io("read", source))? {
            return Ok(empty);
        }
        let (content, generation) = self.content()?;
        Ok(records_in(&content, generation))
    }

    /// Says that the spool is empty, if its first sector shows that: every call asks, and hardly ever is there anything.
    fn at_a_glance(&self) -> io::Result<Option<Spooled>> {
        let room = self.file.metadata()?.size();
        let mut sector = [0; SECTOR];
        if room < SECTOR as u64 {
            return Ok(None);
        }
        self.file.read_exact_at(&mut sector, 0)?;
        let is_empty = generation_of(&sector).is_some_and(|generation| sector == empty_sector(generation));
        Ok(is_empty.then(|| Spooled { room, used: HEADER_LEN as u64, ..Spooled::default() }))
    }

    /// Removes all records and keeps the reserve: once what they asked for is durable elsewhere.
    ///
    /// # Errors
    /// As for [`Spool::read_all`]. The records are then still there, or all gone.
    pub fn clear(&mut self) -> Result<(), SpoolError> {
        let (_, generation) = self.content()?;
        let sector = empty_sector(generation.wrapping_add(1));
        self.file.write_all_at(&sector, 0).map_err(|source| self.io("clear", source))
    }

    fn content(&self) -> Result<(Vec<u8>, u64), SpoolError> {
        let read = || {
            let mut content = vec![0; usize::try_from(self.file.metadata()?.size()).unwrap_or(usize::MAX)];
            self.file.read_exact_at(&mut content, 0)?;
            Ok(content)
        };
        let content: Vec<u8> = read().map_err(|source| self.io("read", source))?;
        match generation_of(&content) {
            Some(generation) => Ok((content, generation)),
            None => Err(SpoolError::Damaged { path: self.path.clone() }),
        }
    }

    fn io(&self, action: &'static str, source: io::Error) -> SpoolError {
        SpoolError::Io { path: self.path.clone(), action, source }
    }
}

// === bytes ===

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

/// The first sector of a spool without records: the header, and zeros, so that it shows at a glance that there is none.
fn empty_sector(generation: u64) -> [u8; SECTOR] {
    let mut parts = MAGIC.to_vec();
    parts.extend_from_slice(&generation.to_le_bytes());
    let checksum = crc32fast::hash(&parts).to_le_bytes();
    parts.extend_from_slice(&checksum);
    let mut sector = [0; SECTOR];
    for (place, byte) in sector.iter_mut().zip(parts) {
        *place = byte;
    }
    sector
}

fn generation_of(content: &[u8]) -> Option<u64> {
    let header = content.get(..HEADER_LEN)?;
    let generation = u64::from_le_bytes(*header.get(8..)?.first_chunk()?);
    empty_sector(generation).starts_with(header).then_some(generation)
}

fn checksum_of(generation: u64, len: [u8; 4], record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(&len);
    hasher.update(record);
    hasher.finalize()
}

fn record_at(content: &[u8], offset: usize, generation: u64) -> Option<&[u8]> {
    let rest = content.get(offset..)?;
    let len: [u8; 4] = *rest.first_chunk()?;
    let checksum = u32::from_le_bytes(*rest.get(4..)?.first_chunk()?);
    let len_of_content = usize::try_from(u32::from_le_bytes(len)).ok().filter(|len| (1..=LONGEST).contains(len))?;
    let record = rest.get(RECORD_HEADER_LEN..RECORD_HEADER_LEN + len_of_content)?;
    (checksum == checksum_of(generation, len, record)).then_some(record)
}

/// The records, and where the next one goes. Behind a record that does not fit are others of the same generation only
/// where it was damaged after it had been written; they are found by looking at every place.
fn records_in(content: &[u8], generation: u64) -> Spooled {
    let mut spooled = Spooled { room: content.len() as u64, used: HEADER_LEN as u64, ..Spooled::default() };
    let mut end = HEADER_LEN;
    let mut offset = HEADER_LEN;
    while offset < content.len() {
        let Some(record) = record_at(content, offset, generation) else {
            offset += 1;
            continue;
        };
        spooled.n_damaged += usize::from(offset != end);
        spooled.records.push(record.to_vec());
        offset += RECORD_HEADER_LEN + record.len();
        end = offset;
    }
    spooled.used = end as u64;
    spooled
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(5);

    fn spool() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ledger.redb");
        Spool::reserve_beside(&ledger).unwrap();
        (folder, ledger)
    }

    #[test]
    fn records_come_back_in_order_until_they_are_cleared() {
        let (_folder, ledger) = spool();
        assert!(Spool::peek(&ledger).unwrap().records.is_empty());
        let records: Vec<Vec<u8>> = (1..200u8).map(|number| vec![number; usize::from(number)]).collect();
        for record in &records {
            Spool::open(&ledger, WAIT).unwrap().append(record).unwrap();
        }
        assert_eq!(Spool::peek(&ledger).unwrap().records, records);
        let mut spool = Spool::open(&ledger, WAIT).unwrap();
        assert_eq!(spool.read_all().unwrap().records, records);
        spool.clear().unwrap();
        assert_eq!(spool.read_all().unwrap().records, Vec::<Vec<u8>>::new());
        assert!(Spool::peek(&ledger).unwrap().records.is_empty());
    }

    #[test]
    fn what_was_cleared_does_not_come_back_behind_a_new_record_of_the_same_length() {
        let (_folder, ledger) = spool();
        let mut spool = Spool::open(&ledger, WAIT).unwrap();
        for record in [b"first", b"secnd", b"third"] {
            spool.append(record).unwrap();
        }
        spool.clear().unwrap();
        spool.append(b"other").unwrap();
        assert_eq!(spool.read_all().unwrap().records, [b"other"]);
    }

    #[test]
    fn the_file_does_not_grow_within_the_reserve_and_is_private() {
        let (_folder, ledger) = spool();
        let path = with_suffix(&ledger, ".spool");
        let before = fs::metadata(&path).unwrap();
        assert_eq!(before.permissions().mode() & 0o777, 0o600);
        assert!(before.blocks() * 512 >= RESERVE as u64);
        let mut spool = Spool::open(&ledger, WAIT).unwrap();
        while spool.read_all().unwrap().used + 108 < RESERVE as u64 {
            spool.append(&[7; 100]).unwrap();
        }
        let after = fs::metadata(&path).unwrap();
        assert_eq!((after.len(), after.blocks()), (before.len(), before.blocks()));
        assert!(spool.read_all().unwrap().records.len() > 500);
    }

    #[test]
    fn a_torn_record_ends_the_spool_and_is_overwritten() {
        let (_folder, ledger) = spool();
        let mut spool = Spool::open(&ledger, WAIT).unwrap();
        spool.append(b"whole").unwrap();
        let end = spool.read_all().unwrap().used;
        spool.append(b"torn by a crash").unwrap();
        let file = File::options().write(true).open(with_suffix(&ledger, ".spool")).unwrap();
        file.write_all_at(&[0; 4], end + 12).unwrap();
        assert_eq!(spool.read_all().unwrap().records, [b"whole"]);
        spool.append(b"again").unwrap();
        assert_eq!(spool.read_all().unwrap().records, [b"whole", b"again"]);
    }

    /// A flipped bit takes the record in which it is, and no other; what is added afterwards stands behind all of them.
    #[test]
    fn a_damaged_record_hides_no_other() {
        let (_folder, ledger) = spool();
        let mut spool = Spool::open(&ledger, WAIT).unwrap();
        let mut ends = Vec::new();
        for record in [&b"first"[..], b"second", b"third"] {
            spool.append(record).unwrap();
            ends.push(spool.read_all().unwrap().used);
        }
        let file = File::options().write(true).open(with_suffix(&ledger, ".spool")).unwrap();
        file.write_all_at(b"?", ends[0] + 10).unwrap();
        spool.append(b"fourth").unwrap();
        let spooled = spool.read_all().unwrap();
        assert_eq!((spooled.records, spooled.n_damaged), (vec![b"first".into(), b"third".into(), b"fourth".into()], 1));
        spool.clear().unwrap();
        assert_eq!(spool.read_all().unwrap().n_damaged, 0);
    }

    #[test]
    fn a_damaged_or_emptied_spool_is_set_aside_and_made_anew() {
        for damage in [&b""[..], b"wbspool1", &[0; RESERVE]] {
            let (_folder, ledger) = spool();
            let path = with_suffix(&ledger, ".spool");
            fs::write(&path, damage).unwrap();
            assert!(matches!(Spool::peek(&ledger), Err(SpoolError::Damaged { .. })));
            Spool::reserve_beside(&ledger).unwrap();
            Spool::open(&ledger, WAIT).unwrap().append(b"on a bad day").unwrap();
            assert_eq!(fs::read(with_suffix(&path, ".damaged")).unwrap(), damage);
        }
    }

    #[test]
    fn a_second_reserve_keeps_what_is_there() {
        let (_folder, ledger) = spool();
        Spool::open(&ledger, WAIT).unwrap().append(b"kept").unwrap();
        Spool::reserve_beside(&ledger).unwrap();
        assert_eq!(Spool::open(&ledger, WAIT).unwrap().read_all().unwrap().records, [b"kept"]);
    }

    #[test]
    fn one_at_a_time() {
        let (_folder, ledger) = spool();
        let first = Spool::open(&ledger, WAIT).unwrap();
        let refused = Spool::open(&ledger, Duration::ZERO).unwrap_err();
        assert!(matches!(refused, SpoolError::Busy { .. }), "{refused}");
        drop(first);
        Spool::open(&ledger, Duration::ZERO).unwrap();
    }

    #[test]
    fn each_refusal_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ledger.redb");
        let name = with_suffix(&ledger, ".spool").display().to_string();
        let missing = Spool::open(&ledger, WAIT).unwrap_err();
        assert!(matches!(missing, SpoolError::Missing { .. }) && missing.to_string().contains(&name), "{missing}");

        Spool::reserve_beside(&ledger).unwrap();
        let long = Spool::open(&ledger, WAIT).unwrap().append(&[0; LONGEST + 1]).unwrap_err();
        assert!(matches!(long, SpoolError::TooLong { .. }) && long.to_string().contains(&name), "{long}");

        let file = File::options().write(true).open(with_suffix(&ledger, ".spool")).unwrap();
        file.write_all_at(b"?", 8).unwrap();
        let damaged = Spool::open(&ledger, WAIT).unwrap().read_all().unwrap_err();
        assert!(matches!(damaged, SpoolError::Damaged { .. }) && damaged.to_string().contains(&name), "{damaged}");
    }
}
