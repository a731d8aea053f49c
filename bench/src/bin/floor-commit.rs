//! A floor of `side-by-side`: what any process costs that makes one durable commit with our options.
//!
//! `floor-commit FILE` opens the redb file and adds one small row.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use redb::{Database, DatabaseError, ReadableTableMetadata, TableDefinition};

const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");

/// About what a lease takes.
const ROW: [u8; 100] = [7; 100];

fn main() -> Result<()> {
    let path: PathBuf = std::env::args_os().nth(1).context("floor-commit FILE")?.into();
    let queue = OpenOptions::new().create(true).append(true).open(path.with_extension("lock"))?;
    queue.lock()?;
    let database = open(&path)?;
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    {
        let mut rows = transaction.open_table(ROWS)?;
        let next = rows.len()?;
        rows.insert(next, ROW.as_slice())?;
    }
    transaction.commit()?;
    // A clean close would cost more syncs and change nothing: quick repair makes the next open as fast.
    std::mem::forget(database);
    std::mem::forget(queue);
    Ok(())
}

/// redb locks the file as well, and a process that ends may give up the queue a moment before it gives up the file.
fn open(path: &Path) -> Result<Database, DatabaseError> {
    loop {
        match Database::builder().set_cache_size(4 << 20).create(path) {
            Err(DatabaseError::DatabaseAlreadyOpen) => std::thread::yield_now(),
            done => return done,
        }
    }
}
