//! Rows of a ledger that are changed behind its back: through redb, so that its pages are sound and only records are not.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

/// Flips a bit in the record of each row whose key has `part` in it, as a disk does.
pub(crate) fn damage(ledger: &Path, table: &str, part: &[u8]) {
    change(ledger, table, part, |record| {
        let mut record = record.to_vec();
        *record.last_mut().unwrap() ^= 1;
        Some(record)
    });
}

/// Changes the record of each row whose key has `part` in it; `None` takes the row away.
pub(crate) fn change(ledger: &Path, table: &str, part: &[u8], change: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let database = Database::create(ledger).unwrap();
    let definition = TableDefinition::<&[u8], &[u8]>::new(table);
    let rows: Vec<(Vec<u8>, Vec<u8>)> = {
        let table = database.begin_read().unwrap().open_table(definition).unwrap();
        let rows = table.iter().unwrap().map(|row| {
            let (key, record) = row.unwrap();
            (key.value().to_vec(), record.value().to_vec())
        });
        rows.filter(|(key, _)| key.windows(part.len()).any(|window| window == part)).collect()
    };
    assert!(!rows.is_empty(), "no such row");
    let mut transaction = database.begin_write().unwrap();
    transaction.set_quick_repair(true);
    {
        let mut table = transaction.open_table(definition).unwrap();
        for (key, record) in rows {
            match change(&record) {
                Some(record) => drop(table.insert(&*key, &*record).unwrap()),
                None => drop(table.remove(&*key).unwrap()),
            }
        }
    }
    transaction.commit().unwrap();
}
