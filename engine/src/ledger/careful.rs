//! What stands between redb and a storage: it leaves out what is needless, and refuses all after a failure.
//!
//! A process that opens the ledger, commits once and exits would pay four syncs with redb alone: two while it opens, for
//! a header that is already there byte for byte, and two for the commit (the pages; then the byte that makes them the
//! truth). A sync of a busy disk takes milliseconds, so those that prove nothing are left out:
//!
//! - A header that is equal to the one in the storage is not written.
//! - A sync with nothing written since the last one is not made.
//! - What a predecessor wrote needs no sync when it has left the note that all of it is durable. The note is wiped before
//!   the first write. Without it the sync must be made: a predecessor that was killed after it had made its commit the
//!   truth, and before that was durable, has freed pages to which the truth on the disk still points. Writing into them
//!   and losing power would leave neither commit whole.
//!
//! Two syncs remain, both in the commit: pages must be durable before the byte points to them, because whoever opens
//! next trusts the byte and does not read all pages to check; and the byte must be durable before anybody is answered.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::storage::Storage;

/// redb's header: a write of at most this length at offset 0 is compared with what is there.
const HEADER_LEN: usize = 512;

/// What one handle knows about its storage; shared between the handle and redb.
#[derive(Debug)]
pub(crate) struct Careful {
    storage: Arc<dyn Storage>,
    /// Something was written that no sync has covered.
    unsynced: AtomicBool,
    /// The note says that all is durable, so it must be wiped before a write.
    note_stands: AtomicBool,
    /// The first failure of the storage, after which nothing is done any more.
    failure: Mutex<Option<io::Error>>,
    /// The handle is being closed: what redb still wants to write on its way out is refused.
    closed: AtomicBool,
}

/// The storage as redb sees it.
#[derive(Debug)]
pub(crate) struct Writable(pub(crate) Arc<Careful>);

/// The storage as redb sees it when it must not be changed: what redb writes stays in memory.
///
/// redb's own read-only mode refuses a file whose last writer did not close it, which ours never do.
#[derive(Debug)]
pub(crate) struct Unchanged {
    careful: Arc<Careful>,
    written: Mutex<Overlay>,
}

#[derive(Debug)]
struct Overlay {
    len: u64,
    /// Page number to page, for the pages that were written to.
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

const PAGE: usize = 4096;
const PAGE_BYTES: u64 = PAGE as u64;

// === impl Careful ===

impl Careful {
    /// A storage that nobody has used before.
    pub(crate) fn for_creating(storage: Arc<dyn Storage>) -> Self {
        Self::with(storage, false)
    }

    /// Looks at what a predecessor left behind, and settles it unless it is known to be durable.
    pub(crate) fn for_writing(storage: Arc<dyn Storage>) -> io::Result<Self> {
        let settled = storage.is_settled();
        if !settled {
            storage.settle()?;
        }
        Ok(Self::with(storage, settled))
    }

    /// A storage of which nothing is known and to which nothing will be written.
    pub(crate) fn for_reading(storage: Arc<dyn Storage>) -> Self {
        Self::with(storage, true)
    }

    fn with(storage: Arc<dyn Storage>, note_stands: bool) -> Self {
        Self {
            storage,
            unsynced: AtomicBool::new(false),
            note_stands: AtomicBool::new(note_stands),
            failure: Mutex::new(None),
            closed: AtomicBool::new(false),
        }
    }

    /// The first failure of the storage, if there was one.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        self.failure.lock().as_ref().map(copy_of)
    }

    /// Refuses whatever redb wants to do from now on, and leaves the note when all that was written is durable.
    pub(crate) fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let settled = !self.unsynced.load(Ordering::Acquire) && self.failure.lock().is_none();
        if settled && !self.note_stands.load(Ordering::Acquire) {
            // Without the note the next open makes one sync more, and nothing else is lost.
            let _ = self.storage.say_settled(true);
        }
    }

    fn may_go_on(&self) -> io::Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(io::Error::other("the ledger is closed"));
        }
        match &*self.failure.lock() {
            Some(failure) => Err(copy_of(failure)),
            None => Ok(()),
        }
    }

    /// Remembers the first failure.
    fn seen<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.failure.lock().get_or_insert_with(|| copy_of(error));
        }
        result
    }

    fn len(&self) -> io::Result<u64> {
        self.may_go_on()?;
        self.seen(self.storage.len())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.may_go_on()?;
        self.seen(self.storage.read(offset, buffer))
    }

    fn about_to_change(&self) -> io::Result<()> {
        self.may_go_on()?;
        if self.note_stands.load(Ordering::Acquire) {
            self.seen(self.storage.say_settled(false))?;
            self.note_stands.store(false, Ordering::Release);
        }
        self.unsynced.store(true, Ordering::Release);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset == 0 && bytes.len() <= HEADER_LEN {
            let mut buffer = [0; HEADER_LEN];
            if let Some(there) = buffer.get_mut(..bytes.len())
                && self.storage.read(0, there).is_ok()
                && there == bytes
            {
                return self.may_go_on();
            }
        }
        self.about_to_change()?;
        self.seen(self.storage.write(offset, bytes))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.about_to_change()?;
        self.seen(self.storage.set_len(len))
    }

    fn sync(&self) -> io::Result<()> {
        self.may_go_on()?;
        // Cleared first: what is written while the sync is under way is not covered by it.
        if !self.unsynced.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let result = self.storage.sync();
        if result.is_err() {
            self.unsynced.store(true, Ordering::Release);
        }
        self.seen(result)
    }
}

/// `io::Error` cannot be cloned; its number, or else its kind and text, is what matters.
fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

// === impl Writable ===

impl redb::StorageBackend for Writable {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

// === impl Unchanged ===

impl Unchanged {
    pub(crate) fn new(careful: Arc<Careful>) -> io::Result<Self> {
        let len = careful.len()?;
        Ok(Self { careful, written: Mutex::new(Overlay { len, pages: BTreeMap::new() }) })
    }

    /// The bytes of one page as they are below the overlay; what lies beyond the storage's end is zero.
    fn page_below(&self, number: u64) -> io::Result<Box<[u8; PAGE]>> {
        let mut page = Box::new([0; PAGE]);
        let start = number.saturating_mul(PAGE_BYTES);
        let available = self.careful.len()?.saturating_sub(start).min(PAGE_BYTES);
        let available = usize::try_from(available).unwrap_or(PAGE);
        if let Some(part) = page.get_mut(..available)
            && !part.is_empty()
        {
            self.careful.read(start, part)?;
        }
        Ok(page)
    }
}

/// The parts of `offset..offset+len` by page: number of the page, and the place of the part in it and in the range.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let position = offset.checked_add(u64::try_from(done).ok()?)?;
        let within = usize::try_from(position % PAGE_BYTES).ok()?;
        let size = (PAGE - within).min(len - done);
        let part = (position / PAGE_BYTES, within..within + size, done..done + size);
        done += size;
        Some(part)
    })
}

impl redb::StorageBackend for Unchanged {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let overlay = self.written.lock();
        let end = offset.saturating_add(out.len() as u64);
        if end > overlay.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end_below = self.careful.len()?;
        if end <= end_below {
            self.careful.read(offset, out)?;
        } else {
            for (number, within, place) in parts(offset, out.len()) {
                let page = self.page_below(number)?;
                if let (Some(to), Some(from)) = (out.get_mut(place), page.get(within)) {
                    to.copy_from_slice(from);
                }
            }
        }
        for (number, within, place) in parts(offset, out.len()) {
            if let Some(page) = overlay.pages.get(&number)
                && let (Some(to), Some(from)) = (out.get_mut(place), page.get(within))
            {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written.lock().len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.careful.may_go_on()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.careful.may_go_on()?;
        let mut overlay = self.written.lock();
        for (number, within, place) in parts(offset, data.len()) {
            let page = match overlay.pages.entry(number) {
                std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
                std::collections::btree_map::Entry::Vacant(vacant) => vacant.insert(self.page_below(number)?),
            };
            if let (Some(to), Some(from)) = (page.get_mut(within), data.get(place)) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }
}
