//! The bytes under a ledger: what redb's pages are read from and written to, and the one file that does it for real.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{Advice, FallocateFlags};

use super::queue::Lockable;

/// Bytes that survive: a file, or in tests a memory that fails on command.
///
/// Between them and redb stands a layer that leaves out needless writes and syncs, and that refuses everything after
/// the first failure; a storage only does what it is told. Offsets and lengths are in bytes.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// How many bytes there are.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether there are no bytes at all: the storage was never used.
    ///
    /// # Errors
    /// As for [`Storage::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buffer` with what stands at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the storage ends before the buffer is full.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Puts `bytes` at `offset`. They need not be durable before the next [`Storage::sync`].
    ///
    /// # Errors
    /// `StorageFull` when there is no room; what was written of `bytes` is then unknown.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the storage `len` bytes long. New bytes are zero.
    ///
    /// # Errors
    /// `StorageFull` when there is no room. It is better reported here than by a write into the new bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns when all that was written is durable.
    ///
    /// # Errors
    /// After a failure nobody knows what is durable, and trying again proves nothing.
    fn sync(&self) -> io::Result<()>;

    /// Whether whoever wrote last has said that all of it is durable, by [`Storage::say_settled`].
    fn is_settled(&self) -> bool;

    /// Takes note that everything here is durable (`true`), or that from now on it is not (`false`).
    ///
    /// The note must be seen by whoever opens the storage next, but it need not survive a power cut: after one,
    /// everything that can be read came from the disk, and so is durable, whatever the note says.
    ///
    /// # Errors
    /// When the note cannot be written. Nobody may then write to the storage.
    fn say_settled(&self, settled: bool) -> io::Result<()>;

    /// Makes durable what a predecessor may have left behind, and forgets what is only in memory.
    ///
    /// # Errors
    /// As for [`Storage::sync`].
    fn settle(&self) -> io::Result<()> {
        self.sync()
    }
}

/// Bytes in memory, which are gone with it.
#[derive(Debug, Default)]
pub(crate) struct MemoryStorage {
    bytes: Mutex<Vec<u8>>,
}

// === impl MemoryStorage ===

impl MemoryStorage {
    /// The bytes of a write or read, if the storage is that long.
    fn span(offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
        let begin = usize::try_from(offset).ok();
        let span = begin.and_then(|begin| Some(begin..begin.checked_add(len)?));
        span.ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))
    }
}

impl Storage for MemoryStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.bytes.lock().len()).unwrap_or(u64::MAX))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock();
        let there = bytes.get(Self::span(offset, buffer.len())?);
        buffer.copy_from_slice(there.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let span = Self::span(offset, bytes.len())?;
        let mut there = self.bytes.lock();
        if there.len() < span.end {
            there.resize(span.end, 0);
        }
        if let Some(place) = there.get_mut(span) {
            place.copy_from_slice(bytes);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = Self::span(len, 0)?.start;
        self.bytes.lock().resize(len, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn is_settled(&self) -> bool {
        true
    }

    fn say_settled(&self, _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// A file, its folder, and the file with the note.
#[derive(Debug)]
pub(crate) struct FileStorage {
    file: Arc<Lockable>,
    folder: File,
    /// The file of the queue lock, which is held as long as this storage lives. The note is its content. A reader of a
    /// read-only folder may have none.
    note: Option<Arc<Lockable>>,
}

/// How long the note is. It is overwritten in place, so that writing it never allocates anything.
pub(crate) const NOTE_LEN: usize = 96;

// === impl FileStorage ===

impl FileStorage {
    pub(crate) fn new(file: Arc<Lockable>, folder: File, note: Option<Arc<Lockable>>) -> Self {
        Self { file, folder, note }
    }

    /// What the note says when all of the file is durable: which file, and when it was last changed.
    ///
    /// The time is that of the inode (ctime), which no restore, copy or `touch` can set back: a file that anything else
    /// has written to, or put in the place of ours, does not fit the note.
    fn note_when_settled(&self) -> io::Result<[u8; NOTE_LEN]> {
        let metadata = self.file.metadata()?;
        let text = format!(
            "settled inode {} size {} changed {}.{:09}\n",
            metadata.ino(),
            metadata.len(),
            metadata.ctime(),
            metadata.ctime_nsec()
        );
        let mut note = [b' '; NOTE_LEN];
        for (place, byte) in note.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        Ok(note)
    }
}

impl Storage for FileStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let old = self.len()?;
        if len > old {
            // Room is taken now, where a full disk is an error before anything was changed, and not page by page in the
            // middle of a commit. Commits that fit the file then work on a full disk, too.
            match rustix::fs::fallocate(&**self.file, FallocateFlags::empty(), old, len - old) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn is_settled(&self) -> bool {
        let mut note = [0; NOTE_LEN];
        let read = self.note.as_ref().map(|file| file.read_exact_at(&mut note, 0));
        matches!(read, Some(Ok(()))) && self.note_when_settled().is_ok_and(|expected| expected == note)
    }

    fn say_settled(&self, settled: bool) -> io::Result<()> {
        let Some(file) = &self.note else { return Err(io::ErrorKind::PermissionDenied.into()) };
        let note = if settled { self.note_when_settled()? } else { [b' '; NOTE_LEN] };
        file.write_all_at(&note, 0)
    }

    /// Beyond the sync, the file's name is made durable, in case that its creator died before it could, and the pages
    /// that the kernel holds are given back. When a sync has failed, the kernel calls the pages that it could not write
    /// clean and goes on serving them, so that a later sync succeeds and everything looks well until the next boot; read
    /// from the disk again, they show the last state that really is there.
    fn settle(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.folder.sync_all()?;
        rustix::fs::fadvise(&**self.file, 0, None, Advice::DontNeed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn storage(folder: &Path) -> FileStorage {
        let open = |name: &str| {
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).truncate(false).open(folder.join(name)).unwrap();
            Arc::new(Lockable::new(file))
        };
        FileStorage::new(open("ledger"), File::open(folder).unwrap(), Some(open("note")))
    }

    #[test]
    fn the_note_holds_until_anything_changes_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let check = |change: &dyn Fn()| {
            let before = storage(folder.path());
            before.write(0, b"pages").unwrap();
            before.sync().unwrap();
            before.say_settled(true).unwrap();
            assert!(storage(folder.path()).is_settled());
            // The clock of a file system ticks every few milliseconds; what changes within one tick is not seen.
            std::thread::sleep(std::time::Duration::from_millis(20));
            change();
            assert!(!storage(folder.path()).is_settled());
        };
        check(&|| storage(folder.path()).say_settled(false).unwrap());
        check(&|| storage(folder.path()).write(2, b"PA").unwrap());
        check(&|| storage(folder.path()).set_len(8192).unwrap());
        // A backup that was put in its place, with its old times.
        check(&|| {
            fs::copy(&path, folder.path().join("backup")).unwrap();
            let old = fs::metadata(&path).unwrap().modified().unwrap();
            let backup = File::options().write(true).open(folder.path().join("backup")).unwrap();
            backup.set_modified(old).unwrap();
            fs::rename(folder.path().join("backup"), &path).unwrap();
        });
        check(&|| fs::write(folder.path().join("note"), "settled").unwrap());
    }

    #[test]
    fn room_is_taken_when_the_file_grows() {
        let folder = tempfile::tempdir().unwrap();
        let storage = storage(folder.path());
        storage.set_len(1 << 20).unwrap();
        let metadata = fs::metadata(folder.path().join("ledger")).unwrap();
        assert_eq!(metadata.len(), 1 << 20);
        assert!(metadata.blocks() * 512 >= 1 << 20, "{} blocks", metadata.blocks());
    }
}
