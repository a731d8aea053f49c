//! One process carries out what the others wait for: a commit costs two syncs, whoever's requests are in it.
//!
//! Whoever finds the ledger in use leaves its request beside it, in a file that it keeps locked, and queues up. The one
//! whose turn it is gives addresses to all who wait, in its own commit, and writes each answer behind its request once
//! that is durable. They then get their turns as ever, find their answers, and make room at once.
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

use super::{Ledger, LedgerError};
use crate::codec::{Record, Served, WaitingRequest};
use crate::host::HostFacts;
use crate::ledger::{
    Access, LedgerFile, LedgerFileError, Lockable, OpenOptions, Share, Turn, deadline_after, lock, with_suffix,
};
use crate::operations::{Allocate, AllocateError, Allocated};

/// What came of waiting for a ledger.
#[derive(Debug)]
pub enum Waited {
    /// Another process got these addresses for the request; they are durable.
    Served(Vec<Allocated>),
    /// It is this one's turn.
    Opened(Box<Ledger>),
}

/// How many requests one process carries out for others: its own caller waits meanwhile.
const MOST: usize = 255;

/// How long a request may be, in bytes. Whoever has more to say waits for its turn.
const LONGEST: usize = 64 << 10;

/// A request that waits; its file is removed with it.
struct Posted {
    path: PathBuf,
    file: Arc<Lockable>,
    len: u64,
}

/// A request that another process waits with.
struct Asked {
    request: Allocate,
    file: Arc<Lockable>,
    len: u64,
}

// === impl Ledger ===

impl Ledger {
    /// Opens the ledger to allocate for one request. While others have it, the request waits where they see it, and one
    /// of them may carry it out.
    ///
    /// ```
    /// # use whereabouts_engine::{Allocate, Attachment, HostFacts, Ledger, Network, OpenOptions, Owner, Pool, Sharing};
    /// # use whereabouts_engine::{View, ViewSpec, Waited, Want};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let range = "10.0.0.0/24".parse()?;
    /// # let view = View::new(&ViewSpec::new(range))?.into();
    /// # let want = Want { pool: Pool::new(Network::unnamed(), range), sharing: Sharing::Shared, view, exactly: None };
    /// # let request =
    /// #     Allocate { attachment: Attachment::named("web"), owner: Owner::Named("web".into()), wants: vec![want] };
    /// let options = OpenOptions::new(folder.path().join("ledger.redb"));
    /// let allocated = match Ledger::open_to_allocate(&options, HostFacts::read(), &request)? {
    ///     Waited::Served(allocated) => allocated,
    ///     Waited::Opened(ledger) => ledger.allocate_for_all(&request)??,
    /// };
    /// assert_eq!(allocated[0].address.to_string(), "10.0.0.1");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LedgerError`] names the file and the cure.
    pub fn open_to_allocate(
        options: &OpenOptions,
        facts: HostFacts,
        request: &Allocate,
    ) -> Result<Waited, LedgerError> {
        let deadline = deadline_after(options.wait);
        let turn = match Turn::take(options, Instant::now()) {
            Err(LedgerFileError::Busy { .. }) if options.access == Access::Write => {
                let posted = Posted::new(&options.path, facts.clone(), request);
                let turn = Turn::take(options, deadline)?;
                match posted.map(|posted| posted.and_then(|posted| posted.answer())) {
                    Ok(Some(allocated)) => return Ok(Waited::Served(allocated)),
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%error, "the request did not wait where others would see it"),
                }
                turn
            }
            turn => turn?,
        };
        let file = LedgerFile::open_in_turn(options, turn, deadline)?;
        Ok(Waited::Opened(Box::new(Self::carry_out_on(file, options, facts)?)))
    }

    /// Gives a request its addresses, and those who wait for the ledger theirs, in one commit.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger cannot be used; then nobody got anything.
    pub fn allocate_for_all(&self, request: &Allocate) -> Result<Result<Vec<Allocated>, AllocateError>, LedgerError> {
        let mut asked = requests_beside(self.file.path(), &self.facts);
        let mut requests = vec![request.clone()];
        requests.extend(asked.iter().map(|asked| asked.request.clone()));
        let mut answers = match self.allocate(&requests) {
            // What is odd about another's request must not cost this one its addresses.
            Err(LedgerError::Storage(error)) if !asked.is_empty() && !self.file.has_io_failure() => {
                tracing::warn!(%error, "not carried out for those who wait");
                asked.clear();
                self.allocate(std::slice::from_ref(request))?
            }
            answers => answers?,
        }
        .into_iter();
        let own = answers.next();
        for (asked, answer) in asked.iter().zip(answers) {
            // Whoever gets nothing looks itself, and says why.
            if let Ok(allocated) = answer
                && let Err(error) = asked.answer(allocated)
            {
                tracing::debug!(%error, "an answer could not be left");
            }
        }
        own.ok_or_else(|| crate::ledger::StorageError::io("an allocation without an answer").into())
    }
}

// === impl Posted ===

impl Posted {
    /// Leaves a request beside the ledger. `None` when it is too long for that.
    fn new(ledger: &Path, facts: HostFacts, request: &Allocate) -> io::Result<Option<Self>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let record = WaitingRequest { facts, request: request.clone() }.encode(&[]).map_err(io::Error::other)?;
        if record.len() > LONGEST {
            return Ok(None);
        }
        let folder = with_suffix(ledger, ".waiting");
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
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
    fn answer(self) -> Option<Vec<Allocated>> {
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
    /// The request in a file, if its process still holds it and sees the same host as this one.
    fn read(path: &Path, facts: &HostFacts) -> io::Result<Option<Self>> {
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
        let Ok(WaitingRequest { facts: theirs, request }) = WaitingRequest::decode(&[], &record) else {
            return Ok(None);
        };
        Ok((theirs == *facts).then_some(Self { request, file, len }))
    }

    fn answer(&self, allocated: Vec<Allocated>) -> io::Result<()> {
        let record = Served(allocated).encode(&[]).map_err(io::Error::other)?;
        self.file.write_all_at(&record, self.len)
    }
}

/// The requests of those who wait for the ledger, in the order of their files' names.
fn requests_beside(ledger: &Path, facts: &HostFacts) -> Vec<Asked> {
    let Ok(folder) = fs::read_dir(with_suffix(ledger, ".waiting")) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = folder.filter_map(|entry| Some(entry.ok()?.path())).take(MOST).collect();
    paths.sort();
    paths.iter().filter_map(|path| Asked::read(path, facts).ok()?).collect()
}
