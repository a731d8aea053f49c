//! Check: whether an attachment still holds the addresses that it was given.

use super::Host;
use super::allocate::{Want, Ways};
use super::environment::Environment;
use super::error::AllocateError;
use super::working::Working;
use crate::address::Address;
use crate::lease::{Attachment, Lease, LeaseState};
use crate::ledger::{Journal, StorageError};
use crate::offset::Offset;
use crate::space::BlockId;
use crate::store::{ReadError, Store};

/// An attachment and the addresses that it should hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    /// The attachment.
    pub attachment: Attachment,
    /// The addresses. Whatever else the attachment holds is fine.
    pub addresses: Vec<Address>,
}

/// What is wrong with an attachment.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The ledger does not know that the attachment holds the address.
    #[error("{attachment} does not hold {address}; delete the container and add it again")]
    NotHeld {
        /// The attachment.
        attachment: Attachment,
        /// The address.
        address: Address,
    },
    /// The block says that another one holds the address.
    #[error("{address} of {attachment} is held by {held_by}; delete the container and add it again")]
    HeldByAnother {
        /// The attachment.
        attachment: Attachment,
        /// The address.
        address: Address,
        /// Who holds it.
        held_by: Box<Lease>,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] ReadError),
}

impl<S: Store, J: Journal, E: Environment> Host<'_, S, J, E> {
    /// Checks each request against the blocks. The answers are in the order of the requests.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used.
    pub async fn check(&self, requests: &[Check]) -> Result<Vec<Result<(), CheckError>>, StorageError> {
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let attachments = [request.attachment.clone(), request.attachment.without_network()];
            let rows = attachments.map(|attachment| self.journal.look(|tables| tables.attachment(&attachment)));
            let mut held: Vec<(BlockId, Offset)> = Vec::new();
            for row in rows {
                let row = row?.filter(|row| row.store == self.store_name);
                held.extend(row.into_iter().flat_map(|row| row.held).map(|held| (held.block, held.offset)));
            }
            answers.push(self.check_one(request, &held).await);
        }
        Ok(answers)
    }

    /// Says for each want whether an allocation would be allowed and find an address now.
    ///
    /// # Errors
    /// [`StorageError`] when the ledger cannot be used.
    pub async fn has_room(&self, wants: &[Want]) -> Result<Vec<Result<(), AllocateError>>, StorageError> {
        let mut working = Working::new(self);
        let mut ways = Ways::default();
        let mut answers = Vec::with_capacity(wants.len());
        for want in wants {
            let found = match self.check_want(want, &mut ways).await {
                Ok(()) => working.lowest_free(&want.space(), &want.view, &Attachment::named("")).await,
                Err(error) => Err(error),
            };
            answers.push(match found {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(want.full()),
                Err(AllocateError::Storage(error)) => return Err(error),
                Err(error) => Err(error),
            });
        }
        Ok(answers)
    }

    async fn check_one(&self, request: &Check, held: &[(BlockId, Offset)]) -> Result<(), CheckError> {
        for &address in &request.addresses {
            let not_held = || CheckError::NotHeld { attachment: request.attachment.clone(), address };
            let (block, offset) =
                held.iter().find(|(block, offset)| block.address_at(*offset) == address).ok_or_else(not_held)?;
            let stored = self.store.read_block(block).await?.ok_or_else(not_held)?;
            let lease = stored.object.get(*offset).ok_or_else(not_held)?;
            if !lease.attachment.is_meant_by(&request.attachment) || lease.state == LeaseState::Releasing {
                return Err(CheckError::HeldByAnother {
                    attachment: request.attachment.clone(),
                    address,
                    held_by: Box::new(lease.clone()),
                });
            }
        }
        Ok(())
    }
}
