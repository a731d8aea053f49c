//! Survey: everything that the store holds, read once, for people.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::ClusterHost;
use crate::block::Block;
use crate::index::{BlockSet, Index};
use crate::lease::{BootId, OperationId};
use crate::ledger::{Journal, LedgerFile, MemoryStorage, OpenOptions, StorageError};
use crate::local::{Disagreement, Holding, Holdings, Ledger, LedgerError, Verified};
use crate::offset::{BlockNumber, Offset};
use crate::operations::Environment;
use crate::space::{BlockId, Space};
use crate::store::{ReadError, Store};

/// What a store held when it was read. It takes no part in anything: what is changed in it changes nothing elsewhere.
#[derive(Debug)]
pub struct Survey {
    /// The blocks and indexes, as a ledger in memory, which answers whatever people ask of one.
    pub ledger: Ledger,
    /// The spaces that are frozen, and why.
    pub frozen: Vec<(Space, String)>,
    /// What cannot be read, which is not in the ledger.
    pub unreadable: Vec<ReadError>,
    /// The blocks that an index lists and that are gone.
    pub missing: Vec<BlockId>,
}

/// Why there is no survey.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] ReadError),
    /// The ledger in memory, or the one of this host, cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Where an address is.
type Place = (BlockId, Offset);

/// A ledger in memory of these.
fn ledger_of(indexes: &BTreeMap<Space, Index>, blocks: &BTreeMap<BlockId, Block>) -> Result<Ledger, LedgerError> {
    let storage = Arc::new(MemoryStorage::default());
    let file = LedgerFile::open_storage(storage, &OpenOptions::new("the survey of a cluster"))?;
    let nobody = crate::HostFacts {
        node: "".into(),
        machine: "".into(),
        boot: BootId::UNKNOWN,
        pid_namespace: 0,
        may_end_boots: false,
    };
    let ledger = Ledger::on(file, nobody);
    ledger.write_rows(|tables| {
        indexes.iter().try_for_each(|(space, index)| tables.set_index(space, index))?;
        blocks.iter().try_for_each(|(id, block)| tables.set_block(id, block))
    })?;
    Ok(ledger)
}

// === impl SurveyError ===

impl From<StorageError> for SurveyError {
    fn from(error: StorageError) -> Self {
        Self::Ledger(error.into())
    }
}

// === impl ClusterHost ===

impl<S: Store, E: Environment> ClusterHost<'_, S, E> {
    /// Reads everything that the store holds.
    ///
    /// # Errors
    /// [`SurveyError`] when the store does not answer. What cannot be read is in [`Survey::unreadable`] or
    /// [`Survey::missing`].
    pub async fn survey(&self) -> Result<Survey, SurveyError> {
        let (mut indexes, mut blocks) = (BTreeMap::new(), BTreeMap::new());
        let (mut frozen, mut unreadable, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        let mut spaces = BTreeSet::new();
        for (space, listed) in self.store.list_indexes().await? {
            unreadable.extend(listed.err());
            spaces.insert(space);
        }
        for space in spaces {
            // Once more, right before its blocks: the less time is between them, the less of what others do is seen half
            // done.
            let existing = match self.store.read_index(&space).await {
                Ok(Some(stored)) => {
                    frozen.extend(stored.object.frozen().map(|reason| (space.clone(), reason.to_owned())));
                    let existing = stored.object.existing().clone();
                    indexes.insert(space.clone(), stored.object);
                    existing
                }
                Ok(None) => BlockSet::default(),
                Err(error @ ReadError::Unavailable { .. }) => return Err(error.into()),
                Err(error) => {
                    if !unreadable.contains(&error) {
                        unreadable.push(error);
                    }
                    BlockSet::default()
                }
            };
            let listed = self.store.list_blocks(&space).await?;
            let there: BTreeSet<BlockNumber> = listed.iter().map(|(number, _)| *number).collect();
            let gone = existing.iter().filter(|number| !there.contains(number));
            missing.extend(gone.map(|number| BlockId { space: space.clone(), number }));
            for (number, listed) in listed {
                match listed {
                    Ok(stored) => drop(blocks.insert(BlockId { space: space.clone(), number }, stored.object)),
                    Err(error) => unreadable.push(error),
                }
            }
        }
        Ok(Survey { ledger: ledger_of(&indexes, &blocks)?, frozen, unreadable, missing })
    }

    /// Holds the blocks of the store against its indexes, and the ledger of this host against the blocks.
    ///
    /// What is under way on this host while it is read is left out; another host's calls may be seen half done, as an
    /// index that is behind, and are gone when it is asked again.
    ///
    /// # Errors
    /// As for [`ClusterHost::survey`].
    pub async fn verify(&self) -> Result<Verified, SurveyError> {
        let Survey { mut ledger, frozen, unreadable, .. } = self.survey().await?;
        let mut disagreements: Vec<Disagreement> = unreadable.into_iter().map(Disagreement::Unreadable).collect();
        disagreements.extend(frozen.into_iter().map(|(space, reason)| Disagreement::Frozen { space, reason }));
        let verified = ledger.verify()?;
        // The ledger in memory has no attachments.
        let of_the_index =
            |found: &Disagreement| !matches!(found, Disagreement::NoAttachment { .. } | Disagreement::Frozen { .. });
        disagreements.extend(verified.disagreements.iter().filter(|found| of_the_index(found)).cloned());
        self.hold_rows_against(&ledger, &mut disagreements)?;
        Ok(Verified { disagreements, ..verified })
    }

    fn hold_rows_against(&self, survey: &Ledger, disagreements: &mut Vec<Disagreement>) -> Result<(), SurveyError> {
        let node = &self.ledger.facts.node;
        let mut leases = BTreeMap::new();
        survey.each_holding(&Holdings::default(), |Holding { space, address, lease }| {
            if let Some(block) = space.block_of(address) {
                leases.insert((block, Offset::of(address)), lease);
            }
            ControlFlow::Continue(())
        })?;
        let (rows, under_way) = self.ledger.journal.look(|tables| {
            let mut rows = Vec::new();
            tables.each_attachment(&[], |attachment, row| {
                rows.push((attachment, row));
                Ok(ControlFlow::Continue(()))
            })?;
            let mut under_way: BTreeSet<Place> = BTreeSet::new();
            for (_, intent) in tables.intents()? {
                under_way.extend(intent.places());
            }
            Ok((rows, under_way))
        })?;
        let mut claimed: BTreeSet<(Place, OperationId)> = BTreeSet::new();
        for (attachment, row) in rows {
            for held in row.held {
                let place = (held.block.clone(), held.offset);
                let is_right = leases.get(&place).is_some_and(|lease| lease.operation == held.operation);
                if !is_right && !under_way.contains(&place) {
                    let address = held.address();
                    disagreements.push(Disagreement::NoLease { attachment: attachment.clone(), address });
                }
                claimed.insert((place, held.operation));
            }
        }
        for (place, lease) in leases.into_iter().filter(|(_, lease)| lease.node == *node) {
            if !under_way.contains(&place) && !claimed.contains(&(place.clone(), lease.operation)) {
                let address = place.0.address_at(place.1);
                disagreements.push(Disagreement::NoAttachment { address, by: lease.to_string() });
            }
        }
        Ok(())
    }
}
