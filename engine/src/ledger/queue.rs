//! Locks on files, for one process after the other and one handle after the other in one process.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// An open file whose lock ends when it is dropped.
///
/// Closing the file would end the lock, too, but not before every copy of it is closed: a child that another thread is
/// just starting has one, from its fork to its exec. So the lock is given back in so many words.
#[derive(Debug)]
pub(crate) struct Lockable(File);

/// Whether others may hold the lock at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// Nobody else.
    Alone,
    /// Others who only read.
    Readers,
}

// === impl Lockable ===

impl Lockable {
    pub(crate) fn new(file: File) -> Self {
        Self(file)
    }
}

impl Deref for Lockable {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Lockable {
    fn drop(&mut self) {
        // When it fails, closing the file does the same a little later.
        let _ = flock(self.0.as_fd(), FlockOperation::Unlock);
    }
}

// === locking ===

/// How many threads of this process may wait inside the kernel at a time.
///
/// A wait that is given up leaves its thread behind until the lock comes free, because nothing but a signal ends the
/// system call. Beyond this number handles ask again and again instead, so that a process that lives long beside a
/// holder that hangs does not gather threads without end.
const MOST_WAITING_THREADS: usize = 64;

static WAITING_THREADS: AtomicUsize = AtomicUsize::new(0);

/// When a wait of `wait` ends that begins now. A wait that no clock can hold ends in a year.
pub(crate) fn deadline_after(wait: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let now = Instant::now();
    now.checked_add(wait).or_else(|| now.checked_add(YEAR)).unwrap_or(now)
}

/// Takes the lock of `file`, waiting until `deadline` at most; `false` when the deadline came first, and then `file` must
/// be dropped: a thread may still wait with it, and gives the lock back only by being the last to drop the file.
///
/// The lock belongs to the open file: two handles in one process exclude each other like two processes, and the kernel
/// drops it when the file is closed, also by a process that is killed. Those who wait in the kernel are served in the
/// order in which they came.
pub(crate) fn lock(file: &Arc<Lockable>, share: Share, deadline: Instant) -> io::Result<bool> {
    if try_lock(file, share)? {
        return Ok(true);
    }
    if deadline <= Instant::now() {
        return Ok(false);
    }
    if WAITING_THREADS.fetch_add(1, Ordering::AcqRel) < MOST_WAITING_THREADS
        && let Some(result) = wait_in_kernel(file, share, deadline)
    {
        return result;
    }
    WAITING_THREADS.fetch_sub(1, Ordering::AcqRel);
    ask_repeatedly(file, share, deadline)
}

fn try_lock(file: &File, share: Share) -> io::Result<bool> {
    let operation = match share {
        Share::Alone => FlockOperation::NonBlockingLockExclusive,
        Share::Readers => FlockOperation::NonBlockingLockShared,
    };
    loop {
        match flock(file.as_fd(), operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Lets another thread sleep in `flock(2)`, which itself knows no deadline. `None` when there is no thread to be had.
///
/// The thread takes over the count in [`WAITING_THREADS`].
fn wait_in_kernel(file: &Arc<Lockable>, share: Share, deadline: Instant) -> Option<io::Result<bool>> {
    let operation = match share {
        Share::Alone => FlockOperation::LockExclusive,
        Share::Readers => FlockOperation::LockShared,
    };
    let (sender, receiver) = channel();
    let its_file = Arc::clone(file);
    let waiter = move || {
        let result = loop {
            match flock(its_file.as_fd(), operation) {
                Err(Errno::INTR) => {}
                result => break result,
            }
        };
        WAITING_THREADS.fetch_sub(1, Ordering::AcqRel);
        // When nobody listens any more, this was the last use of the open file, and dropping it gives the lock back.
        drop(its_file);
        let _ = sender.send(result);
    };
    // The thread only makes a system call; its stack need not be large.
    thread::Builder::new().name("ledger-queue".into()).stack_size(64 * 1024).spawn(waiter).ok()?;
    let patience = deadline.saturating_duration_since(Instant::now());
    Some(match receiver.recv_timeout(patience) {
        Ok(Ok(())) => Ok(true),
        Ok(Err(error)) => Err(error.into()),
        Err(RecvTimeoutError::Timeout) => Ok(false),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the thread that waited for the lock is gone")),
    })
}

/// Asks, pauses, and asks again, with pauses that grow from 0.2 ms to 10 ms and are never the same for two who wait.
fn ask_repeatedly(file: &File, share: Share, deadline: Instant) -> io::Result<bool> {
    let mut pause = Duration::from_micros(200);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // Two who wait must not march in step; the keys of a new hasher are as good a dice as any.
        let dice = u32::try_from(RandomState::new().hash_one(()) % 64).unwrap_or(0);
        thread::sleep((pause + pause * dice / 128).min(left));
        if try_lock(file, share)? {
            return Ok(true);
        }
        pause = (pause * 3 / 2).min(Duration::from_millis(10));
    }
}
