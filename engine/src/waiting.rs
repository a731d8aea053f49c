//! Requests for addresses that wait beside a ledger, where a process that works for itself finds them and carries them
//! out with its own: one commit, and in a cluster one swap, whoever's requests are in it.
//!
//! Whoever waits for its turn leaves its request in a file that it keeps locked. The one whose turn it is writes each
//! answer behind its request once that is durable. The others then get their turns as ever, find their answers, and make
//! room at once.
//!
//! Nothing depends on it. Without an answer, or with one that is damaged, a process does its work itself; if another one
//! has done it already and died before it could say so, the owner is given the same addresses again. A request whose
//! process is gone is not carried out.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::codec::{Record, Served, WaitingRequest};
use crate::ledger::{Lockable, Share, lock};
use crate::operations::{Allocate, AllocateError, Allocated};

/// What came of waiting for a turn.
#[derive(Debug)]
pub enum Waited<T> {
    /// Another process got these addresses for the request; they are durable.
    Served(Vec<Allocated>),
    /// It is this one's turn.
    Turn(T),
}

/// How many requests one process carries out for others: its own caller waits meanwhile.
const MOST: usize = 255;

/// How long a request may be, in bytes. Whoever has more to say waits for its turn.
const LONGEST: usize = 64 << 10;

/// A request that waits; its file is removed with it.
#[derive(Debug)]
pub(crate) struct Posted {
    path: PathBuf,
    file: Arc<Lockable>,
    len: u64,
}

/// Requests that other processes wait with.
#[derive(Debug, Default)]
pub(crate) struct Asked(Vec<One>);

/// One of them.
#[derive(Debug)]
struct One {
    request: Allocate,
    file: Arc<Lockable>,
    len: u64,
}

// === impl Posted ===

impl Posted {
    /// Leaves a request in `folder`. `None` when that cannot be done: then its process waits all the same.
    pub(crate) fn leave(folder: &Path, request: &WaitingRequest) -> Option<Self> {
        Self::new(folder, request).unwrap_or_else(|error| {
            tracing::debug!(%error, "the request does not wait where others would see it");
            None
        })
    }

    /// `None` when the request is too long.
    fn new(folder: &Path, request: &WaitingRequest) -> io::Result<Option<Self>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let record = request.encode(&[]).map_err(io::Error::other)?;
        if record.len() > LONGEST {
            return Ok(None);
        }
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = folder.join(format!("{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let posted = Self { path, file: Arc::new(Lockable::new(file)), len: record.len() as u64 };
        // Locked before it is written: a request that nobody holds is not carried out.
        if !lock(&posted.file, Share::Alone, Instant::now())? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        posted.file.write_all_at(&record, 0)?;
        Ok(Some(posted))
    }

    /// What another process got for the request. Only for one whose turn it is, when nobody can be about to answer.
    pub(crate) fn take_answer(self) -> Option<Vec<Allocated>> {
        let len = self.file.metadata().ok()?.len().checked_sub(self.len)?;
        let mut record = vec![0; usize::try_from(len).ok().filter(|len| (1..=LONGEST).contains(len))?];
        self.file.read_exact_at(&mut record, self.len).ok()?;
        Served::decode(&[], &record).ok().map(|Served(allocated)| allocated)
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        // What stays is not locked, and whoever comes next removes it.
        let _ = fs::remove_file(&self.path);
    }
}

// === impl Asked ===

impl Asked {
    /// The requests in `folder` that are `meant`, in the order of their files' names.
    pub(crate) fn in_folder(folder: &Path, meant: impl Fn(&WaitingRequest) -> bool) -> Self {
        let Ok(files) = fs::read_dir(folder) else { return Self::default() };
        let mut paths: Vec<PathBuf> = files.filter_map(|file| Some(file.ok()?.path())).take(MOST).collect();
        paths.sort();
        Self(paths.iter().filter_map(|path| One::read(path, &meant).ok()?).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// This request, and behind it those that are asked for.
    pub(crate) fn after(&self, own: &Allocate) -> Vec<Allocate> {
        std::iter::once(own).chain(self.0.iter().map(|one| &one.request)).cloned().collect()
    }

    /// Whether the request at this place of [`Self::after`] is still waited for.
    pub(crate) fn is_waited_for(&self, at: usize) -> bool {
        at.checked_sub(1).and_then(|at| self.0.get(at)).is_none_or(One::is_waited_for)
    }

    /// Leaves the answers to [`Self::after`] where they are waited for, and returns this process's own.
    pub(crate) fn deliver(
        &self,
        answers: Vec<Result<Vec<Allocated>, AllocateError>>,
    ) -> Option<Result<Vec<Allocated>, AllocateError>> {
        let mut answers = answers.into_iter();
        let own = answers.next();
        for (one, answer) in self.0.iter().zip(answers) {
            // Whoever gets nothing looks itself, and says why.
            if let Ok(allocated) = answer
                && let Err(error) = one.leave_answer(allocated)
            {
                tracing::debug!(%error, "an answer could not be left");
            }
        }
        own
    }
}

// === impl One ===

impl One {
    /// The request in a file, if its process still holds it and it is meant.
    fn read(path: &Path, meant: impl Fn(&WaitingRequest) -> bool) -> io::Result<Option<Self>> {
        let file = Arc::new(Lockable::new(File::options().read(true).write(true).open(path)?));
        if lock(&file, Share::Readers, Instant::now())? {
            // Its process has died, or has just made the file and does not count on anybody yet.
            fs::remove_file(path)?;
            return Ok(None);
        }
        let len = file.metadata()?.len();
        let Some(n) = usize::try_from(len).ok().filter(|n| *n <= LONGEST) else { return Ok(None) };
        let mut record = vec![0; n];
        file.read_exact_at(&mut record, 0)?;
        let Ok(request) = WaitingRequest::decode(&[], &record) else { return Ok(None) };
        Ok(meant(&request).then_some(Self { request: request.request, file, len }))
    }

    /// Whether its process still holds it: neither gone nor at work on it itself. When that cannot be told, it is not.
    fn is_waited_for(&self) -> bool {
        // A lock that is got is given back when the file is closed, and until then its process does not want it again.
        matches!(lock(&self.file, Share::Readers, Instant::now()), Ok(false))
    }

    fn leave_answer(&self, allocated: Vec<Allocated>) -> io::Result<()> {
        let record = Served(allocated).encode(&[]).map_err(io::Error::other)?;
        self.file.write_all_at(&record, self.len)
    }
}
