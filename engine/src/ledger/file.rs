//! The ledger's file: opened by one after the other, read and written whole or not at all, and closed at no cost.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::careful::{Careful, Unchanged, Writable};
use super::file_error::LedgerFileError;
use super::filesystem::{FileSystem, Trust};
use super::panics::catch;
use super::queue::{Lockable, Share, deadline_after, lock};
use super::storage::{FileStorage, NOTE_LEN, Storage};

/// How a ledger is to be opened.
///
/// ```
/// use std::time::Duration;
/// use whereabouts_engine::{Access, Create, LedgerFile, OpenOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("state/ledger.redb");
/// let mut options = OpenOptions::new(&path);
/// options.wait = Duration::from_secs(5);
/// assert!(LedgerFile::open(&options)?.is_new());
/// assert!(!LedgerFile::open(&options)?.is_new());
///
/// options.access = Access::Read;
/// options.create = Create::Never;
/// LedgerFile::open(&options)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenOptions {
    /// The ledger. Beside it stand its queue (`.lock`), its spool (`.spool`) and the requests that wait (`.waiting`).
    pub path: PathBuf,
    /// How long to wait for the others who use it. With zero, the first refusal is the answer. By default 10 seconds.
    pub wait: Duration,
    /// What to do when there is no ledger. By default one is created.
    pub create: Create,
    /// What the handle will do. By default everything.
    pub access: Access,
    /// How many bytes of pages the handle may keep in memory. Memory is only taken for pages that are used. By default
    /// 16 MiB, which holds what thousands of operations touch.
    pub cache_bytes: usize,
}

/// What to do when there is no ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// Create it, and the folders above it, for this user alone (0700, the file 0600). Where one was made before and is
    /// gone, report [`LedgerFileError::Lost`].
    IfMissing,
    /// Create it, also in the place of one that is gone: what it held is known elsewhere.
    EvenIfLost,
    /// Report [`LedgerFileError::Missing`], or [`LedgerFileError::Lost`].
    Never,
}

/// What a handle will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Write and read, alone.
    Write,
    /// Read, beside others who read, and change nothing: not even the file of a process that was killed. Such a handle
    /// works with a read-only file or folder. What it reads is committed, but when a process was killed in the middle of
    /// a commit, it may not be durable yet: only a handle that writes may answer for it.
    Read,
}

/// An open ledger. While it lives, no other process and no other handle can write to it.
///
/// There is nothing to do at the end: every commit is durable when it returns, and a handle that is dropped, a process
/// that exits without dropping it, and one that is killed cost whoever comes next at most one sync.
#[derive(Debug)]
pub struct LedgerFile {
    path: PathBuf,
    /// `None` only while it is being dropped.
    database: Option<Database>,
    careful: Arc<Careful>,
    /// redb has panicked: what it holds in memory cannot be trusted.
    panicked: AtomicBool,
    access: Access,
    new: bool,
    scanned: bool,
    file_system: FileSystem,
    /// The open files whose locks keep others out. Declared last: others come in when all else is done.
    _locks: Vec<Arc<Lockable>>,
}

/// A turn with the ledger, before it is opened: nobody else writes to it for as long as this lives.
pub(crate) struct Turn {
    folder: Folder,
    queue: Option<Arc<Lockable>>,
}

/// What becomes of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome<T> {
    /// It is made durable, and then this is the answer.
    Commit(T),
    /// It never happened, and this is the answer.
    Abandon(T),
}

/// The newest format of redb files that the redb in here writes and reads.
const REDB_FORMAT: u8 = 3;
const REDB_MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";

// === impl OpenOptions ===

impl OpenOptions {
    /// The options for a program that wants to write to the ledger at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            wait: Duration::from_secs(10),
            create: Create::IfMissing,
            access: Access::Write,
            cache_bytes: 16 << 20,
        }
    }

    /// Whether a ledger is made where there is none.
    fn creates(&self) -> bool {
        self.access == Access::Write && self.create != Create::Never
    }
}

// === impl Turn ===

impl Turn {
    /// Waits for its turn until `deadline`.
    pub(crate) fn take(options: &OpenOptions, deadline: Instant) -> Result<Self, LedgerFileError> {
        let path = options.path.as_path();
        let folder = Folder::above(path, options.creates())?;
        if fs::symlink_metadata(path).is_err() && !options.creates() {
            return Err(missing(path));
        }
        Ok(Self { folder, queue: queue_up(path, options, deadline)? })
    }
}

// === impl LedgerFile ===

impl LedgerFile {
    /// Opens the ledger, waiting for its turn.
    ///
    /// # Errors
    /// One variant of [`LedgerFileError`] for each thing that the user can do about it. A file that is damaged, cut off
    /// or empty is never replaced by a new one, because what it held may still be in use.
    pub fn open(options: &OpenOptions) -> Result<Self, LedgerFileError> {
        let deadline = deadline_after(options.wait);
        Self::open_in_turn(options, Turn::take(options, deadline)?, deadline)
    }

    /// Opens the ledger in a turn that was taken before, with the same options. Until `deadline`, others that do not queue
    /// up are waited for.
    pub(crate) fn open_in_turn(options: &OpenOptions, turn: Turn, deadline: Instant) -> Result<Self, LedgerFileError> {
        let path = options.path.as_path();
        let create = options.creates();
        let Turn { folder, queue } = turn;
        let mut locks: Vec<_> = queue.iter().map(Arc::clone).collect();
        let (file, unpublished) = match open_ledger(path, options.access) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
                if options.create == Create::IfMissing && was_made(path) {
                    return Err(missing(path));
                }
                let temporary = with_suffix(path, ".new");
                (create_ledger(&temporary)?, Some(temporary))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(path)),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                let detail = "it is a folder".to_owned();
                return Err(LedgerFileError::NotALedger { path: path.to_path_buf(), detail });
            }
            result => (result.map_err(|error| LedgerFileError::from_io(path, "open", error))?, None),
        };
        refuse_if_not_a_file(&file, path)?;
        // The file may be elsewhere than its folder: its name can be a link.
        let file_system = refuse_network(&file, path)?;
        // Our own processes queue; this lock is for readers of a read-only folder, which cannot, and for other programs
        // that open redb files.
        take_turn(&file, path, options, deadline)?;
        locks.push(Arc::clone(&file));

        let new = unpublished.is_some();
        let storage = Arc::new(FileStorage::new(file, folder.handle, queue.clone()));
        let opened = Self::on(storage, new, file_system, options, locks)?;
        if let Some(temporary) = unpublished {
            publish(&temporary, path)?;
        }
        if let (Some(queue), Access::Write) = (queue, options.access)
            && let Err(error) = say_made(&queue)
        {
            tracing::warn!(path = %path.display(), %error, "should the ledger get lost, nobody would notice");
        }
        Ok(opened)
    }

    /// Opens a ledger on a storage that is not a file, or not the file of that name: for tests that count and crash.
    /// An empty storage becomes a new ledger if the options allow it. The caller sees to it that no other handle is
    /// open on the same storage.
    ///
    /// # Errors
    /// As for [`LedgerFile::open`].
    #[doc(hidden)]
    pub fn open_storage(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Self, LedgerFileError> {
        let path = options.path.as_path();
        let new = storage.is_empty().map_err(|error| LedgerFileError::from_io(path, "read", error))?;
        if new && (options.create == Create::Never || options.access == Access::Read) {
            return Err(LedgerFileError::Missing { path: path.to_path_buf() });
        }
        Self::on(storage, new, FileSystem::local(), options, Vec::new())
    }

    fn on(
        storage: Arc<dyn Storage>,
        new: bool,
        file_system: FileSystem,
        options: &OpenOptions,
        locks: Vec<Arc<Lockable>>,
    ) -> Result<Self, LedgerFileError> {
        let path = options.path.as_path();
        if !new {
            let head = Head::read(storage.as_ref());
            head.map_err(|error| LedgerFileError::from_io(path, "read", error))?.refuse_if_wrong(path)?;
        }
        let careful = match options.access {
            Access::Write if new => Arc::new(Careful::for_creating(storage)),
            Access::Write => {
                let careful = Careful::for_writing(storage);
                Arc::new(careful.map_err(|error| LedgerFileError::from_io(path, "sync", error))?)
            }
            Access::Read => Arc::new(Careful::for_reading(storage)),
        };
        let mut builder = Database::builder();
        builder.set_cache_size(options.cache_bytes);
        let scanned = Arc::new(AtomicBool::new(false));
        let noticed = Arc::clone(&scanned);
        builder.set_repair_callback(move |_| noticed.store(true, Ordering::Release));
        let opened = catch(|| match options.access {
            Access::Write => builder.create_with_backend(Writable(Arc::clone(&careful))),
            Access::Read => builder.create_with_backend(Unchanged::new(Arc::clone(&careful))?),
        });
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(error)) => {
                return Err(explain(path, &careful, error.into()));
            }
            Err(panic) => {
                return Err(LedgerFileError::Damaged { path: path.to_path_buf(), detail: panic });
            }
        };
        Ok(Self {
            path: path.to_path_buf(),
            database: Some(database),
            careful,
            panicked: AtomicBool::new(false),
            access: options.access,
            new,
            scanned: scanned.load(Ordering::Acquire),
            file_system,
            _locks: locks,
        })
    }

    /// Whether there was no ledger, and this handle has created it.
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// Whether all of the file had to be read to open it. No crash of ours leads to that; another program that has
    /// written to the file does.
    pub fn was_scanned(&self) -> bool {
        self.scanned
    }

    /// Where the ledger is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the ledger stands on, for the caller to warn about an overlay, and about memory where it matters.
    pub fn file_system(&self) -> FileSystem {
        self.file_system
    }

    /// Whether it was opened to write.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Whether the disk has refused something, rather than what is on it being wrong.
    pub(crate) fn has_io_failure(&self) -> bool {
        self.careful.failure().is_some()
    }

    /// Ends the use of the ledger, as dropping it does: nothing is written to it, nothing is synced.
    ///
    /// A program that calls this, or drops the handle, before it exits leaves a note that everything is durable, which
    /// saves the next one a sync.
    pub fn finish(self) {
        drop(self);
    }

    /// Reads in one snapshot.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, LedgerFileError> {
        self.guarded(|database| work(&database.begin_read()?))
    }

    /// Lets `work` change what it wants, and takes all of it back. In a handle that reads, too: what is written there
    /// never leaves memory.
    pub(crate) fn try_out<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, LedgerFileError> {
        self.guarded(|database| {
            let transaction = database.begin_write()?;
            let answer = work(&transaction)?;
            transaction.abort()?;
            Ok(answer)
        })
    }

    /// Says why nothing could be written to the file, as far as that can be told without writing: no permission, or a
    /// file system that is mounted read-only. For a handle that reads and answers for those who will write.
    ///
    /// # Errors
    /// [`LedgerFileError::NoPermission`], [`LedgerFileError::ReadOnly`].
    pub fn may_be_written(&self) -> Result<(), LedgerFileError> {
        let opened = File::options().write(true).open(&self.path);
        opened.map(drop).map_err(|error| LedgerFileError::from_io(&self.path, "write to", error))
    }

    /// Changes everything that `work` changes, or nothing. When this returns a commit's answer, it is durable.
    pub(crate) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<Outcome<T>, redb::Error>,
    ) -> Result<T, LedgerFileError> {
        if self.access == Access::Read {
            return Err(LedgerFileError::NoPermission { path: self.path.clone(), action: "write to" });
        }
        self.guarded(|database| {
            let mut transaction = database.begin_write()?;
            // The free pages are recorded with every commit, in two steps, so that nobody ever has to scan the file to
            // find them: not after a kill, and not after an exit without closing, which is how all of ours end.
            transaction.set_quick_repair(true);
            match work(&transaction)? {
                Outcome::Commit(answer) => {
                    transaction.commit()?;
                    Ok(answer)
                }
                Outcome::Abandon(answer) => {
                    transaction.abort()?;
                    Ok(answer)
                }
            }
        })
    }

    /// Reads every page and says whether all of them are what was written. Takes about a second per gigabyte.
    ///
    /// Only for a handle that reads: redb would write what it repairs.
    pub(crate) fn pages_are_intact(&mut self) -> Result<bool, LedgerFileError> {
        let result = match &mut self.database {
            Some(database) if self.access == Access::Read => catch(|| database.check_integrity()),
            _ => {
                return Err(LedgerFileError::NoPermission {
                    path: self.path.clone(),
                    action: "verify while writing to",
                });
            }
        };
        match result {
            Ok(Ok(intact)) => Ok(intact),
            Ok(Err(redb::DatabaseError::Storage(redb::StorageError::Corrupted(_)))) => Ok(false),
            Ok(Err(error)) => Err(explain(&self.path, &self.careful, error.into())),
            Err(panic) => Err(self.panicked_with(panic)),
        }
    }

    /// Runs `work` unless this handle has failed before, and sees to it that it never runs again when it fails now.
    fn guarded<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, LedgerFileError> {
        let closed = |failure: String| LedgerFileError::Closed { path: self.path.clone(), failure };
        if self.panicked.load(Ordering::Acquire) {
            return Err(closed("a damaged page".to_owned()));
        }
        if let Some(failure) = self.careful.failure() {
            return Err(closed(failure.to_string()));
        }
        let Some(database) = &self.database else {
            return Err(closed("it was closed".to_owned()));
        };
        match catch(|| work(database)) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(explain(&self.path, &self.careful, error)),
            Err(panic) => Err(self.panicked_with(panic)),
        }
    }

    fn panicked_with(&self, detail: String) -> LedgerFileError {
        self.panicked.store(true, Ordering::Release);
        LedgerFileError::Damaged { path: self.path.clone(), detail }
    }
}

impl Drop for LedgerFile {
    /// redb would end with one more commit and a header that says "closed", four syncs in all, to spare the next one
    /// what the commits of ours spare it anyway. So the storage is closed under it first. An integrity check then ends at
    /// its first sync, and leaves redb knowing that there is no storage any more; without it redb would prepare all of
    /// that commit before it found out.
    fn drop(&mut self) {
        self.careful.close();
        let database = self.database.take();
        let _ = catch(|| database.map(|mut database| database.check_integrity()));
    }
}

// === files and folders ===

/// The folder of a ledger, known not to be shared between hosts.
struct Folder {
    handle: File,
}

impl Folder {
    fn above(path: &Path, create: bool) -> Result<Self, LedgerFileError> {
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let handle = match File::open(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
                // Looked at before anything is created, so that a refusal leaves nothing behind.
                if let Some(existing) = folder.ancestors().skip(1).find_map(|above| File::open(above).ok()) {
                    refuse_network(&existing, path)?;
                }
                create_folder(folder).map_err(|error| LedgerFileError::from_io(folder, "create", error))?;
                File::open(folder)
            }
            // Below a file there is no ledger, and never was one.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) && !create => {
                return Err(LedgerFileError::Missing { path: path.to_path_buf() });
            }
            result => result,
        };
        let handle = handle.map_err(|error| LedgerFileError::from_io(folder, "open", error))?;
        refuse_network(&handle, path)?;
        Ok(Self { handle })
    }
}

fn refuse_network(file: &File, path: &Path) -> Result<FileSystem, LedgerFileError> {
    let file_system = FileSystem::of(file).map_err(|error| LedgerFileError::from_io(path, "look at", error))?;
    match file_system.trust() {
        Trust::Network => Err(LedgerFileError::NetworkFileSystem { path: path.to_path_buf(), file_system }),
        _ => Ok(file_system),
    }
}

/// Creates a folder and those above it that are missing, each for its owner alone whatever the umask is.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    if let Some(above) = folder.parent()
        && above != Path::new("")
        && !above.exists()
    {
        create_folder(above)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => fs::set_permissions(folder, Permissions::from_mode(0o700))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        Err(error) => return Err(error),
    }
    // The ledger is only durable when every name above it is. Folders that this user may not read are not ours.
    if let Some(above) = folder.parent()
        && let Ok(above) = File::open(if above == Path::new("") { Path::new(".") } else { above })
    {
        above.sync_all()?;
    }
    Ok(())
}

/// Waits for the lock of the file that is the queue. `None` when one who only wants to read has no such file.
fn queue_up(path: &Path, options: &OpenOptions, deadline: Instant) -> Result<Option<Arc<Lockable>>, LedgerFileError> {
    let queue_path = with_suffix(path, ".lock");
    loop {
        let Some(queue) = open_queue(&queue_path, options.access)? else { return Ok(None) };
        take_turn(&queue, &queue_path, options, deadline)?;
        // Whoever has cleared the folder meanwhile has taken the queue with it; those who come now stand in another.
        let stands = fs::metadata(&queue_path).is_ok_and(|stands| {
            queue.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (stands.dev(), stands.ino()))
        });
        if stands {
            return Ok(Some(queue));
        }
    }
}

fn open_queue(queue_path: &Path, access: Access) -> Result<Option<Arc<Lockable>>, LedgerFileError> {
    let result = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(queue_path);
    match (result, access) {
        (Ok(file), _) => {
            keep_private(&file).map_err(|error| LedgerFileError::from_io(queue_path, "protect", error))?;
            Ok(Some(Arc::new(Lockable::new(file))))
        }
        (Err(_), Access::Read) => Ok(File::open(queue_path).ok().map(|file| Arc::new(Lockable::new(file)))),
        (Err(error), Access::Write) => Err(LedgerFileError::from_io(queue_path, "lock", error)),
    }
}

fn open_ledger(path: &Path, access: Access) -> io::Result<Arc<Lockable>> {
    let file = File::options().read(true).write(access == Access::Write).open(path)?;
    if access == Access::Write {
        keep_private(&file)?;
    }
    Ok(Arc::new(Lockable::new(file)))
}

/// Stands behind the note in the queue's file once there is a ledger.
const MADE: &[u8] = b"a ledger was made here\n";

/// Notes that there is a ledger, so that it is missed when it is gone.
///
/// Written after the ledger has got its name: the other way round, a crash would leave a ledger to be missed that never
/// was. It is not synced: whoever opens the ledger next finds the note missing, and writes it.
fn say_made(queue: &File) -> io::Result<()> {
    if is_said(queue) { Ok(()) } else { queue.write_all_at(MADE, NOTE_LEN as u64) }
}

fn is_said(queue: &File) -> bool {
    let mut said = [0; MADE.len()];
    queue.read_exact_at(&mut said, NOTE_LEN as u64).is_ok() && said == MADE
}

/// Whether there was a ledger once.
fn was_made(path: &Path) -> bool {
    File::open(with_suffix(path, ".lock")).is_ok_and(|queue| is_said(&queue))
}

/// That there is no ledger: yet, or any more.
fn missing(path: &Path) -> LedgerFileError {
    let path = path.to_path_buf();
    if was_made(&path) { LedgerFileError::Lost { path } } else { LedgerFileError::Missing { path } }
}

/// A new ledger grows under another name, so that a file of the ledger's name is always a whole one: an empty or a
/// half-made file in its place means that something is lost.
fn create_ledger(temporary: &Path) -> Result<Arc<Lockable>, LedgerFileError> {
    let create = || {
        // What one who died left behind may be of another owner or kind; it is not reused.
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(temporary)?;
        keep_private(&file)?;
        Ok(Arc::new(Lockable::new(file)))
    };
    create().map_err(|error| LedgerFileError::from_io(temporary, "create", error))
}

fn publish(temporary: &Path, path: &Path) -> Result<(), LedgerFileError> {
    let rename = || {
        fs::rename(temporary, path)?;
        File::open(path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")))?.sync_all()
    };
    rename().map_err(|error| LedgerFileError::from_io(path, "create", error))
}

/// Takes the bits of others off a file, and gives its owner what the umask may have taken.
fn keep_private(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.mode() & 0o777 == 0o600 || !metadata.is_file() {
        return Ok(());
    }
    match file.set_permissions(Permissions::from_mode(0o600)) {
        // A file of another owner keeps the permissions that he gave it; that it could be opened is enough.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

fn refuse_if_not_a_file(file: &File, path: &Path) -> Result<(), LedgerFileError> {
    let metadata = file.metadata().map_err(|error| LedgerFileError::from_io(path, "look at", error))?;
    if metadata.is_file() {
        return Ok(());
    }
    let detail = "it is a folder, a device or a pipe".to_owned();
    Err(LedgerFileError::NotALedger { path: path.to_path_buf(), detail })
}

fn take_turn(
    file: &Arc<Lockable>,
    path: &Path,
    options: &OpenOptions,
    deadline: Instant,
) -> Result<(), LedgerFileError> {
    let share = match options.access {
        Access::Write => Share::Alone,
        Access::Read => Share::Readers,
    };
    match lock(file, share, deadline) {
        Ok(true) => Ok(()),
        Ok(false) => Err(LedgerFileError::Busy { path: path.to_path_buf(), waited: options.wait }),
        Err(error) => Err(LedgerFileError::from_io(path, "lock", error)),
    }
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

// === what errors mean ===

/// The beginning of the file, for telling apart what redb reports as one.
#[derive(Debug)]
struct Head {
    len: u64,
    bytes: [u8; 320],
}

impl Head {
    fn read(storage: &dyn Storage) -> io::Result<Self> {
        let len = storage.len()?;
        let mut bytes = [0; 320];
        let available = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
        if let Some(part) = bytes.get_mut(..available)
            && !part.is_empty()
        {
            storage.read(0, part)?;
        }
        Ok(Self { len, bytes })
    }

    fn number(&self, offset: usize) -> u64 {
        match self.bytes.get(offset..offset + 4) {
            Some(&[a, b, c, d]) => u64::from(u32::from_le_bytes([a, b, c, d])),
            _ => 0,
        }
    }

    /// How long the file was when its header was written: one page, the full regions, the last region.
    fn expected_len(&self) -> u64 {
        let (page, header, most, full, last) =
            (self.number(12), self.number(16), self.number(20), self.number(24), self.number(28));
        let last = if last == 0 { 0 } else { header + last };
        page.saturating_mul(full.saturating_mul(header + most).saturating_add(last).saturating_add(1))
    }

    fn format(&self) -> u8 {
        let slot = match self.bytes.get(9) {
            Some(flags) if flags & 1 == 1 => 64 + 128,
            _ => 64,
        };
        self.bytes.get(slot).copied().unwrap_or(0)
    }

    fn refuse_if_wrong(&self, path: &Path) -> Result<(), LedgerFileError> {
        let path = path.to_path_buf();
        if self.len < self.bytes.len() as u64 {
            let detail = "even its header is missing".to_owned();
            return Err(LedgerFileError::Truncated { path, len: self.len, detail });
        }
        if self.bytes.iter().all(|byte| *byte == 0) {
            return Err(LedgerFileError::Damaged { path, detail: "its header is all zero".to_owned() });
        }
        if !self.bytes.starts_with(REDB_MAGIC) {
            return Err(LedgerFileError::NotALedger { path, detail: "it does not begin like one".to_owned() });
        }
        let expected = self.expected_len();
        if self.len < expected {
            // The length is made durable before a header that counts on it, so no crash leaves this behind.
            let detail = format!("it was {expected} bytes long");
            return Err(LedgerFileError::Truncated { path, len: self.len, detail });
        }
        if self.format() > REDB_FORMAT {
            let (found, known) = (self.format().into(), REDB_FORMAT.into());
            return Err(LedgerFileError::NewerFormat { path, found, known });
        }
        Ok(())
    }
}

fn explain(path: &Path, careful: &Careful, error: redb::Error) -> LedgerFileError {
    // What the storage said first is the cause; what redb says after it is that it failed before.
    let cause = careful.failure().map_or(error, redb::Error::Io);
    let path = path.to_path_buf();
    match cause {
        redb::Error::Io(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => {
            LedgerFileError::Damaged { path, detail: "it ends where a page should be".to_owned() }
        }
        redb::Error::Io(cause) => LedgerFileError::from_io(&path, "read or write", cause),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
            LedgerFileError::Closed { path, failure: cause.to_string() }
        }
        other => LedgerFileError::Damaged { path, detail: other.to_string() },
    }
}

#[cfg(test)]
mod tests;
