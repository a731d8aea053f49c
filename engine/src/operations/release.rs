//! Release: free what an attachment, an owner's name or an operator names.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Host;
use super::environment::Environment;
use super::settle::Freed;
use crate::address::Address;
use crate::intent::{HeldAddress, Intent, Purpose};
use crate::lease::{Attachment, Lease, OperationId};
use crate::ledger::{Journal, Rows, RowsMut, StorageError, Tables};
use crate::offset::Offset;
use crate::space::{BlockId, Space};
use crate::store::{ReadError, Store};

/// What is to be freed.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Release {
    /// Everything that an attachment holds. Where the CNI network name is missing or unknown, the only attachment of
    /// that container and interface is meant.
    Attachment {
        /// The container id.
        container: Arc<str>,
        /// The interface.
        interface: Arc<str>,
        /// The CNI network name, where the caller knows it.
        network: Option<Arc<str>>,
    },
    /// The lease of one address, whoever holds it: an operator's word.
    Address {
        /// The space.
        space: Space,
        /// The address.
        address: Address,
        /// Only if this operation wrote the lease.
        operation: Option<OperationId>,
    },
}

/// What was freed. An attachment that is not known, and an address that nobody holds, free nothing, which is no error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Released {
    /// The addresses that are free now, and who held them.
    pub freed: Vec<(Address, Lease)>,
    /// The addresses that are durably queued on this host, and why: the store does not answer or refuses, or the space is
    /// frozen. A later call frees them.
    pub queued: Vec<(Address, String)>,
    /// Attachments of the same container and interface in other networks, of which none could be meant for certain.
    pub ambiguous: Vec<Attachment>,
}

/// Why something could not be freed, nor queued for a later call.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] ReadError),
    /// What the attachment holds cannot be read. Where the ledger is the store, its repair frees it.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Where the ledger is the store: a block of it cannot be read. Its repair frees these addresses; what the request named
    /// beside them is free.
    #[error("not released: {}: {reason}", .addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(", "))]
    Kept {
        /// The addresses that are still held.
        addresses: Vec<Address>,
        /// What is wrong.
        reason: String,
    },
}

/// A request on its way.
struct Leaving {
    operation: OperationId,
    intent: Intent,
    held: Vec<HeldAddress>,
    ambiguous: Vec<Attachment>,
}

type Answer = Result<Released, ReleaseError>;

impl<S: Store, J: Journal, E: Environment> Host<'_, S, J, E> {
    /// Frees what each request names. The answers are in the order of the requests.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used; then nothing was freed or queued.
    pub async fn release(&self, requests: &[Release]) -> Result<Vec<Answer>, StorageError> {
        Ok(self.release_unless(requests, |_| Ok(false)).await?.unwrap_or_default())
    }

    /// The same, unless something is so in the very transaction in which the release begins: then nothing is done.
    pub(crate) async fn release_unless(
        &self,
        requests: &[Release],
        is_off: impl for<'t> FnOnce(&Tables<J::Rows<'t>>) -> Result<bool, StorageError>,
    ) -> Result<Option<Vec<Answer>>, StorageError> {
        if self.needs_intents() {
            // An ADD that died has written down its intent, and perhaps nothing else.
            let attachments = self.journal.look(|tables| {
                let under_way: Vec<Attachment> =
                    tables.intents()?.into_iter().map(|(_, intent)| intent.attachment).collect();
                let mut attachments = Vec::new();
                for request in requests {
                    attachments.extend(named(tables, request)?);
                    attachments.extend(named_among(&under_way, request));
                }
                Ok(attachments)
            })?;
            self.settle_attachments(&attachments.iter().collect::<Vec<_>>()).await?;
        }
        let mut found = Vec::with_capacity(requests.len());
        for request in requests {
            found.push(self.find(request).await);
        }
        // Rows go and intents come in one transaction: from here on the release is on its way, whatever happens.
        let leaving = self.journal.record(|tables| {
            if is_off(tables)? {
                return Ok(None);
            }
            let mut leaving = Vec::with_capacity(found.len());
            for found in found {
                leaving.push(match found {
                    Ok((request, held)) => match self.queue(tables, request, held) {
                        Err(error) if error.is_of_one_row() => {
                            self.leave_to_repair(tables, request)?;
                            Err(error.into())
                        }
                        queued => Ok(queued?),
                    },
                    Err(error) => Err(error.into()),
                });
            }
            Ok(Some(leaving))
        })?;
        match leaving {
            Some(leaving) => self.carry_out(leaving).await.map(Some),
            None => Ok(None),
        }
    }

    /// What an operator's address stands for. What an attachment holds is looked up when it is queued.
    async fn find<'r>(&self, request: &'r Release) -> Result<(&'r Release, Vec<HeldAddress>), ReadError> {
        let Release::Address { space, address, operation } = request else { return Ok((request, Vec::new())) };
        let Some(block) = space.block_of(*address) else { return Ok((request, Vec::new())) };
        let offset = Offset::of(*address);
        let stored = self.store.read_block(&block).await?;
        let lease = stored.and_then(|stored| stored.object.get(offset).cloned());
        let held = lease.filter(|lease| operation.is_none_or(|operation| operation == lease.operation)).map(|lease| {
            let operation = lease.operation;
            HeldAddress { block, offset, operation, lease: Some(lease) }
        });
        Ok((request, held.into_iter().collect()))
    }

    /// Turns what is held into a release that is durably on its way.
    fn queue<R: RowsMut>(
        &self,
        tables: &mut Tables<R>,
        request: &Release,
        mut held: Vec<HeldAddress>,
    ) -> Result<Leaving, StorageError> {
        let mut ambiguous = Vec::new();
        let mut of = Attachment::named("");
        match request {
            Release::Attachment { network, .. } => match named(tables, request)?.as_slice() {
                [] => {}
                [attachment] => {
                    if let Some(row) = tables.attachment(attachment)?.filter(|row| row.store == self.store_name) {
                        held.clone_from(&row.held);
                        tables.forget_attachment(attachment)?;
                        // The hint goes now: once the address is free, it may be the same owner's again.
                        for HeldAddress { block, offset, lease, .. } in &held {
                            if let Some(lease) = lease {
                                tables.forget_owner(block, *offset, lease)?;
                            }
                        }
                    }
                    of = attachment.clone();
                }
                several => {
                    tracing::warn!(?network, n = several.len(), "several networks hold addresses, and none is named");
                    ambiguous = several.to_vec();
                }
            },
            Release::Address { .. } => {
                if let Some(HeldAddress { block, offset, lease: Some(lease), .. }) = held.first() {
                    of = lease.attachment.clone();
                    if self.needs_intents() {
                        forget_known(tables, block, *offset, lease)?;
                    }
                }
            }
        }
        let operation = self.new_operation();
        let intent = self.intent(&of, Purpose::Release(held.clone()));
        if self.needs_intents() && !held.is_empty() {
            tables.set_intent(operation, &intent)?;
        }
        Ok(Leaving { operation, intent, held, ambiguous })
    }

    async fn carry_out(&self, leaving: Vec<Result<Leaving, ReleaseError>>) -> Result<Vec<Answer>, StorageError> {
        let held: Vec<HeldAddress> =
            leaving.iter().flatten().flat_map(|leaving| leaving.held.iter().cloned()).collect();
        let freed = self.free(&held, false).await;
        let mut by_place: BTreeMap<_, Lease> =
            freed.freed.into_iter().map(|(block, offset, lease)| ((block, offset, lease.operation), lease)).collect();
        let mut answers = Vec::with_capacity(leaving.len());
        for leaving in leaving {
            let leaving = match leaving {
                Ok(leaving) => leaving,
                Err(error) => {
                    answers.push(Err(error));
                    continue;
                }
            };
            let mut answer = Released { ambiguous: leaving.ambiguous, ..Released::default() };
            let mut part = Freed::default();
            for held in &leaving.held {
                let place = (held.block.clone(), held.offset, held.operation);
                if let Some(lease) = by_place.remove(&place) {
                    answer.freed.push((held.address(), lease.clone()));
                    part.freed.push((place.0, place.1, lease));
                } else if let Some(reason) = freed.open.get(&held.block) {
                    answer.queued.push((held.address(), reason.clone()));
                    part.open.insert(held.block.clone(), reason.clone());
                }
                if freed.unsure_marks.contains(&held.block) && !part.unsure_marks.contains(&held.block) {
                    part.unsure_marks.push(held.block.clone());
                }
            }
            let kept = part.open.values().next().cloned().filter(|_| !self.needs_intents());
            if !leaving.held.is_empty() {
                self.close_release(leaving.operation, &leaving.intent, &leaving.held, part)?;
            }
            answers.push(match kept {
                Some(reason) => {
                    let mut kept = leaving.held;
                    let addresses: Vec<Address> = answer.queued.into_iter().map(|(address, _)| address).collect();
                    kept.retain(|held| addresses.contains(&held.address()));
                    let intent = Intent { purpose: Purpose::Release(kept), ..leaving.intent };
                    self.journal.record(|tables| tables.set_intent(leaving.operation, &intent))?;
                    Err(ReleaseError::Kept { addresses, reason })
                }
                None => Ok(answer),
            });
        }
        Ok(answers)
    }

    /// Writes down that an attachment of which not even the row can be read is to be released: whoever mends the row frees
    /// what it held, for nobody will ask again.
    fn leave_to_repair<R: RowsMut>(&self, tables: &mut Tables<R>, request: &Release) -> Result<(), StorageError> {
        let Release::Attachment { container, interface, network } = request else { return Ok(()) };
        if self.needs_intents() {
            return Ok(());
        }
        let network = network.clone().unwrap_or_else(|| "".into());
        let of = Attachment { container: Arc::clone(container), interface: Arc::clone(interface), network };
        let intent = self.intent(&of, Purpose::Release(Vec::new()));
        let is_it = |known: &Intent| known.attachment == of && known.purpose == intent.purpose;
        if !tables.intents()?.iter().any(|(_, known)| is_it(known)) {
            tables.set_intent(self.new_operation(), &intent)?;
        }
        Ok(())
    }

    /// Frees, where the ledger is the store, what earlier calls could not because it could not be read, now that it can;
    /// says what is free.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used.
    pub(crate) async fn release_left_to_repair(&self) -> Result<Vec<Address>, StorageError> {
        let left = self.journal.record(|tables| {
            let left = tables.intents()?;
            left.iter().try_for_each(|(operation, _)| tables.close_intent(*operation))?;
            Ok(left)
        })?;
        let mut requests = Vec::new();
        for (_, Intent { attachment, boot, opened, purpose, .. }) in left {
            let Purpose::Release(held) = purpose else { continue };
            requests.extend(held.iter().map(|held| Release::Address {
                space: held.block.space.clone(),
                address: held.address(),
                operation: Some(held.operation),
            }));
            let Attachment { container, interface, network } = attachment;
            let network = Some(network).filter(|network| !network.is_empty());
            let rows = self.journal.look(|tables| tables.attachments_of(&container, &interface))?;
            // Added again since, it is not the one that was to be released.
            let is_newer = rows.iter().any(|(_, row)| row.is_newer_than(boot, opened, self.boot));
            if held.is_empty() && !is_newer {
                requests.push(Release::Attachment { container, interface, network });
            }
        }
        let answers = if requests.is_empty() { Vec::new() } else { self.release(&requests).await? };
        Ok(answers.into_iter().flatten().flat_map(|released| released.freed).map(|(address, _)| address).collect())
    }
}

/// Forgets a lease if the row of its attachment knows it, and with it the hint to its owner's address. Where the row
/// knows nothing of it, the hint is of a newer lease.
pub(crate) fn forget_known<R: RowsMut>(
    tables: &mut Tables<R>,
    block: &BlockId,
    offset: Offset,
    lease: &Lease,
) -> Result<(), StorageError> {
    let is_it = |held: &HeldAddress| held.block == *block && held.offset == offset && held.operation == lease.operation;
    match tables.attachment(&lease.attachment)? {
        Some(row) if row.held.iter().any(is_it) => tables.forget_lease(block, offset, lease),
        _ => Ok(()),
    }
}

/// The attachments of calls under way that a request can mean.
fn named_among(under_way: &[Attachment], request: &Release) -> Vec<Attachment> {
    let Release::Attachment { container, interface, network } = request else { return Vec::new() };
    let mut meant: Vec<Attachment> = under_way.to_vec();
    meant.retain(|attachment| attachment.container == *container && attachment.interface == *interface);
    if meant.iter().any(|attachment| Some(&attachment.network) == network.as_ref()) {
        meant.retain(|attachment| Some(&attachment.network) == network.as_ref());
    }
    meant
}

/// The attachments that a request can mean: one, none, or several of which none is certain.
fn named<R: Rows>(tables: &Tables<R>, request: &Release) -> Result<Vec<Attachment>, StorageError> {
    let Release::Attachment { container, interface, network } = request else { return Ok(Vec::new()) };
    if let Some(network) = network {
        let exact = Attachment {
            container: Arc::clone(container),
            interface: Arc::clone(interface),
            network: Arc::clone(network),
        };
        if tables.attachment(&exact)?.is_some() {
            return Ok(vec![exact]);
        }
    }
    let rows = tables.attachments_of(container, interface)?;
    Ok(rows.into_iter().map(|(attachment, _)| attachment).collect())
}
