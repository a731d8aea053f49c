//! Collect (GC): free what this host recorded for a CNI network and the runtime no longer lists.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Host;
use super::environment::Environment;
use super::release::{Release, ReleaseError, Released};
use crate::ledger::{Journal, StorageError};
use crate::store::Store;

/// The runtime's list of what is alive, for one CNI network of this host.
#[derive(Clone, Debug)]
pub struct Collect {
    /// The CNI network name. Other networks may share the space; theirs is not touched.
    pub network: Arc<str>,
    /// Container id and interface of every attachment that is alive.
    pub valid: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Attachments recorded less than this many milliseconds ago, by the boot clock, are spared: runtimes have
    /// listed before they recorded.
    pub grace: u64,
}

impl<S: Store, J: Journal, E: Environment> Host<'_, S, J, E> {
    /// Frees what is not listed. Each attachment has its own answer; one that fails, or of which not even the row can be
    /// read, does not keep the others.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used.
    pub async fn collect(&self, list: &Collect) -> Result<Vec<Result<Released, ReleaseError>>, StorageError> {
        let now = self.environment.boot_clock();
        let (stale, unreadable) = self.journal.look(|tables| {
            let mut stale = Vec::new();
            let mut unreadable = Vec::new();
            tables.each_attachment_or_error(|read| {
                let (attachment, row) = match read {
                    Ok(read) => read,
                    Err(error) => return unreadable.push(Err(error.into())),
                };
                let is_young = row.boot == self.boot && now.saturating_sub(row.recorded) < list.grace;
                let is_listed =
                    list.valid.contains(&(Arc::clone(&attachment.container), Arc::clone(&attachment.interface)));
                if attachment.network == list.network && row.store == self.store_name && !is_listed && !is_young {
                    stale.push(Release::Attachment {
                        container: attachment.container,
                        interface: attachment.interface,
                        network: Some(attachment.network),
                    });
                }
            })?;
            Ok((stale, unreadable))
        })?;
        let mut answers = if stale.is_empty() { Vec::new() } else { self.release(&stale).await? };
        answers.extend(unreadable);
        Ok(answers)
    }
}
