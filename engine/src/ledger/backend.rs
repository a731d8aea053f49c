//! A storage in memory that counts, and that fails on command: for tests, benchmarks and fuzzing.
//!
//! It keeps two images. The live one is what this process, and every other one until the power is cut, reads. The durable
//! one is what a disk would hold: it takes over the writes when they are synced, and before that any of them, in any
//! order and cut at the sectors' edges, if a seed says so.

use std::collections::BTreeMap;
use std::io;

use parking_lot::Mutex;

use super::storage::Storage;

/// What a disk writes as a whole or not at all, in bytes.
const SECTOR: usize = 512;

/// A storage in memory. See the [module](self).
///
/// ```
/// use std::sync::Arc;
/// use whereabouts_engine::backend::{MemoryStorage, Survives};
/// use whereabouts_engine::{LedgerFile, OpenOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let storage = Arc::new(MemoryStorage::new());
/// LedgerFile::open_storage(storage.clone(), &OpenOptions::new("example"))?.finish();
/// assert!(storage.counts().syncs > 0);
///
/// // The power is cut at the next sync: whoever opens then finds what had been durable before.
/// storage.crash_at_sync(1);
/// let after = storage.after_power_cut(Survives::Seeded(7));
/// assert!(!LedgerFile::open_storage(Arc::new(after), &OpenOptions::new("example"))?.is_new());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct MemoryStorage {
    state: Mutex<State>,
}

/// How often a storage was used, since it was made or since [`MemoryStorage::reset_counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that read.
    pub reads: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Calls that wrote.
    pub writes: u64,
    /// Bytes that were written.
    pub bytes_written: u64,
    /// Calls that changed the length.
    pub resizes: u64,
    /// Calls that made things durable.
    pub syncs: u64,
}

/// Which of the writes that no sync has covered are on the disk after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// None of them.
    Nothing,
    /// All of them, as if the kernel had been quick.
    Everything,
    /// For each sector of 512 bytes some of those that touched it, up to one of them: torn and reordered, as the seed
    /// says.
    Seeded(u64),
}

/// What fails, and when. Counting starts when the fault is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The machine or the process is gone with the n-th sync, before the sync has done anything.
    CrashAtSync(u64),
    /// The same with the n-th write or change of length.
    CrashAtWrite(u64),
    /// From the n-th write or change of length on, the system refuses.
    RefuseWrites { from: u64, error: io::ErrorKind },
    /// The n-th sync reports an error; what it should have made durable is lost, and no later sync brings it back.
    FailSync { at: u64, error: io::ErrorKind },
    /// The storage cannot become longer than this, in bytes.
    Room(u64),
}

#[derive(Debug, Default)]
struct State {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// What was done to `live` since the last sync.
    unsynced: Vec<Change>,
    counts: Counts,
    faults: Vec<Fault>,
    crashed: bool,
    settled: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

// === impl MemoryStorage ===

impl MemoryStorage {
    /// An empty storage without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// A storage that holds `image`, durably.
    pub fn with_image(image: Vec<u8>) -> Self {
        let state = State { live: image.clone(), durable: image, ..State::default() };
        Self { state: Mutex::new(state) }
    }

    /// What is read now.
    pub fn image(&self) -> Vec<u8> {
        self.state.lock().live.clone()
    }

    /// How often it was used.
    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// Starts counting anew, and returns what was counted.
    pub fn reset_counts(&self) -> Counts {
        std::mem::take(&mut self.state.lock().counts)
    }

    /// Everything stops at the `n`-th sync from now (the first is 1), before it has made anything durable.
    pub fn crash_at_sync(&self, n: u64) {
        self.state.lock().faults.push(Fault::CrashAtSync(n));
    }

    /// Everything stops at the `n`-th write or change of length from now (the first is 1), before it is done.
    pub fn crash_at_write(&self, n: u64) {
        self.state.lock().faults.push(Fault::CrashAtWrite(n));
    }

    /// From the `n`-th write or change of length on (the first is 1), the answer is `error`, for example
    /// `StorageFull`.
    pub fn refuse_writes_from(&self, n: u64, error: io::ErrorKind) {
        self.state.lock().faults.push(Fault::RefuseWrites { from: n, error });
    }

    /// The `n`-th sync from now (the first is 1) answers `error`. As with Linux, what it should have made durable never
    /// will be, although it can still be read, until [`Storage::settle`] looks at what the disk really holds.
    pub fn fail_sync(&self, n: u64, error: io::ErrorKind) {
        self.state.lock().faults.push(Fault::FailSync { at: n, error });
    }

    /// The storage cannot grow beyond `bytes`; the answer is then `StorageFull`.
    pub fn limit_to(&self, bytes: u64) {
        self.state.lock().faults.push(Fault::Room(bytes));
    }

    /// Removes all faults that are not yet due, and repairs those that are; a crash is final.
    pub fn heal(&self) {
        self.state.lock().faults.clear();
    }

    /// Whether a crash has happened.
    pub fn has_crashed(&self) -> bool {
        self.state.lock().crashed
    }

    /// Turns one bit around, in what is read and on the disk.
    pub fn flip_bit(&self, offset: usize, bit: u8) {
        let mut state = self.state.lock();
        let mask = 1 << (bit % 8);
        let State { live, durable, .. } = &mut *state;
        for image in [live, durable] {
            if let Some(byte) = image.get_mut(offset) {
                *byte ^= mask;
            }
        }
    }

    /// Cuts the end off, in what is read and on the disk.
    pub fn truncate(&self, len: usize) {
        let mut state = self.state.lock();
        state.live.truncate(len);
        state.durable.truncate(len);
    }

    /// What the next process finds after this one was killed: everything that was written, synced or not.
    pub fn after_kill(&self) -> Self {
        let state = self.state.lock();
        let survivor = State {
            live: state.live.clone(),
            durable: state.durable.clone(),
            unsynced: state.unsynced.clone(),
            settled: state.settled,
            ..State::default()
        };
        Self { state: Mutex::new(survivor) }
    }

    /// What the next process finds after the power was cut: what was synced, and of the rest what `survives`. The note
    /// that all is settled is as it was, which must not matter.
    pub fn after_power_cut(&self, survives: Survives) -> Self {
        let state = self.state.lock();
        let image = match survives {
            Survives::Nothing => state.durable.clone(),
            Survives::Everything => state.live.clone(),
            Survives::Seeded(seed) => state.torn(seed),
        };
        let survivor = State { live: image.clone(), durable: image, settled: state.settled, ..State::default() };
        Self { state: Mutex::new(survivor) }
    }
}

impl Storage for MemoryStorage {
    fn len(&self) -> io::Result<u64> {
        let state = self.state.lock();
        state.alive()?;
        Ok(state.live.len() as u64)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        state.alive()?;
        state.counts.reads += 1;
        state.counts.bytes_read += buffer.len() as u64;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = start.checked_add(buffer.len()).and_then(|end| state.live.get(start..end));
        buffer.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        state.alive()?;
        state.counts.writes += 1;
        state.counts.bytes_written += bytes.len() as u64;
        state.before_change()?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = offset.checked_add(bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
        if end > state.live.len() {
            state.check_room(end)?;
        }
        state.change(Change::Write { offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.alive()?;
        state.counts.resizes += 1;
        state.before_change()?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        state.check_room(len)?;
        state.change(Change::Resize(len));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.alive()?;
        state.counts.syncs += 1;
        state.before_sync()?;
        let changes = std::mem::take(&mut state.unsynced);
        for change in changes {
            change.apply(&mut state.durable);
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.state.lock().settled
    }

    fn say_settled(&self, settled: bool) -> io::Result<()> {
        let mut state = self.state.lock();
        state.alive()?;
        state.settled = settled;
        Ok(())
    }

    fn settle(&self) -> io::Result<()> {
        self.sync()?;
        let mut state = self.state.lock();
        state.live = state.durable.clone();
        Ok(())
    }
}

// === impl State ===

impl State {
    fn alive(&self) -> io::Result<()> {
        if self.crashed { Err(io::Error::other("crashed")) } else { Ok(()) }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.unsynced.push(change);
    }

    /// Lets the faults that wait for a change come nearer.
    fn before_change(&mut self) -> io::Result<()> {
        let mut outcome = Ok(());
        for fault in &mut self.faults {
            match fault {
                Fault::CrashAtWrite(n) => {
                    *n = n.saturating_sub(1);
                    if *n == 0 {
                        self.crashed = true;
                    }
                }
                Fault::RefuseWrites { from, error } => {
                    *from = from.saturating_sub(1);
                    if *from == 0 {
                        outcome = Err((*error).into());
                    }
                }
                _ => {}
            }
        }
        self.alive()?;
        outcome
    }

    fn before_sync(&mut self) -> io::Result<()> {
        let mut failed = None;
        for fault in &mut self.faults {
            match fault {
                Fault::CrashAtSync(n) => {
                    *n = n.saturating_sub(1);
                    if *n == 0 {
                        self.crashed = true;
                    }
                }
                Fault::FailSync { at, error } => {
                    if *at == 1 {
                        failed = Some(*error);
                    }
                    *at = at.saturating_sub(1);
                }
                _ => {}
            }
        }
        self.alive()?;
        match failed {
            Some(error) => {
                self.unsynced.clear();
                Err(error.into())
            }
            None => Ok(()),
        }
    }

    fn check_room(&self, len: usize) -> io::Result<()> {
        let full = self.faults.iter().any(|fault| matches!(fault, Fault::Room(room) if len as u64 > *room));
        if full && len > self.live.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// The durable image with a seeded part of what was not synced. Each sector, and the length, has seen the first few
    /// of the changes that touched it, for a number of its own.
    fn torn(&self, seed: u64) -> Vec<u8> {
        let mut dice = Dice(seed);
        let resizes: Vec<usize> = self
            .unsynced
            .iter()
            .filter_map(|change| match change {
                Change::Resize(len) => Some(*len),
                Change::Write { .. } => None,
            })
            .collect();
        let mut image = self.durable.clone();
        if let Some(len) = dice.up_to(resizes.len()).checked_sub(1).and_then(|last| resizes.get(last)) {
            image.resize(*len, 0);
        }
        // Sector number to the pieces that were written to it, in order: place in the image, bytes.
        let mut sectors: BTreeMap<usize, Vec<(usize, &[u8])>> = BTreeMap::new();
        for change in &self.unsynced {
            let Change::Write { offset, bytes } = change else { continue };
            let mut done = 0;
            while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
                let place = offset + done;
                let size = rest.len().min(SECTOR - place % SECTOR);
                let Some(piece) = rest.get(..size) else { break };
                sectors.entry(place / SECTOR).or_default().push((place, piece));
                done += size;
            }
        }
        for pieces in sectors.values() {
            for (place, piece) in pieces.iter().take(dice.up_to(pieces.len())) {
                // A sector beyond the end that survived belongs to a length that did not.
                if let Some(there) = image.get_mut(*place..place + piece.len()) {
                    there.copy_from_slice(piece);
                }
            }
        }
        image
    }
}

// === impl Change ===

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Resize(len) => image.resize(*len, 0),
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if image.len() < end {
                    image.resize(end, 0);
                }
                if let Some(there) = image.get_mut(*offset..end) {
                    there.copy_from_slice(bytes);
                }
            }
        }
    }
}

/// SplitMix64: small, seeded, and the same on every machine.
struct Dice(u64);

impl Dice {
    /// A number from 0 to `most`, both included.
    fn up_to(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let choices = most as u64 + 1;
        usize::try_from(mixed % choices).unwrap_or(0)
    }
}
