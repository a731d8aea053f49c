//! Intents: changes that are under way, durable before anything is sent.

use std::sync::Arc;

use crate::lease::{Attachment, BootId, Lease, OperationId};
use crate::offset::Offset;
use crate::space::{BlockId, Space};
use crate::store::Version;

/// A change that is under way. Whoever finds one that its writer cannot end settles it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Intent {
    /// Whose call it is.
    pub(crate) attachment: Attachment,
    /// Where the change is sent: see `AttachmentRow::store`.
    pub(crate) store: Arc<str>,
    /// The boot of the writer, and milliseconds by its boot clock when the intent was opened.
    pub(crate) boot: BootId,
    /// Milliseconds by the boot clock of `boot`.
    pub(crate) opened: u64,
    /// What is to be done, or undone.
    pub(crate) purpose: Purpose,
}

/// What an intent is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Purpose {
    /// An ADD takes these addresses. Unless it answers, they are given back.
    Claim(Vec<Claim>),
    /// Somebody settles a claim of a call that ended without an answer. The call itself, should it still run, sees
    /// this and answers with an error.
    Undo(Vec<Claim>),
    /// These leases are on their way out; nothing brings them back.
    Release(Vec<HeldAddress>),
    /// The index may mark these blocks as fuller than they are.
    Recheck(Vec<BlockId>),
    /// The space is to be frozen for all.
    Freeze {
        /// Which space.
        space: Space,
        /// The epoch in which it was judged. A repair since then has answered it.
        epoch: u64,
        /// Why, in a sentence for people.
        reason: String,
    },
}

/// One address that an ADD takes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    /// The block of the address.
    pub(crate) block: BlockId,
    /// Its place in the block.
    pub(crate) offset: Offset,
    /// The version against which the block is swapped.
    pub(crate) expected: Version,
    /// The lease that the owner already had at this place, and keeps when the ADD fails.
    pub(crate) previous: Option<Lease>,
}

/// An address as an attachment holds it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HeldAddress {
    /// The block of the address.
    pub(crate) block: BlockId,
    /// Its place in the block.
    pub(crate) offset: Offset,
    /// The operation that wrote the lease; the lease is freed under this id only.
    pub(crate) operation: OperationId,
    /// The lease itself where the block is in a cluster, so that a repair can put it back; `None` where this ledger
    /// holds the block.
    pub(crate) lease: Option<Lease>,
}

/// What the ledger remembers of an attachment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AttachmentRow {
    /// The store of its leases, so that a DEL whose configuration is lost finds them; empty for the ledger itself.
    pub(crate) store: Arc<str>,
    /// The boot in which it was recorded.
    pub(crate) boot: BootId,
    /// Milliseconds by the boot clock of `boot` when it was recorded: what GC judges age by.
    pub(crate) recorded: u64,
    /// Its addresses.
    pub(crate) held: Vec<HeldAddress>,
}

/// The newest state of an object that this host has seen. An older one is a restored image.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// The highest epoch; what a repair opened again may begin anew.
    pub(crate) epoch: u64,
    /// The highest sequence in that epoch.
    pub(crate) sequence: u64,
    /// The identity of the object, as its store gives it.
    pub(crate) identity: Vec<u8>,
}

/// Who held an address, from when to when.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// The block of the address.
    pub block: BlockId,
    /// Its place in the block.
    pub offset: Offset,
    /// The lease as it was.
    pub lease: Lease,
    /// Until when, in milliseconds since 1970; from when says the lease.
    pub until: u64,
}

// === impl HeldAddress ===

impl HeldAddress {
    /// The address.
    pub(crate) fn address(&self) -> crate::Address {
        self.block.address_at(self.offset)
    }
}

// === impl AttachmentRow ===

impl AttachmentRow {
    /// Whether it was recorded after that moment of that boot, while `now` runs. Of two boots that are over nobody can say
    /// which came first.
    pub(crate) fn is_newer_than(&self, boot: BootId, moment: u64, now: BootId) -> bool {
        if self.boot == boot {
            return self.recorded > moment;
        }
        // What a rebuilt ledger has learned of an earlier boot is as old as this one.
        self.boot == now && self.recorded > 0
    }
}

// === impl Intent ===

impl Intent {
    /// The addresses that it names.
    pub(crate) fn places(&self) -> Vec<(BlockId, Offset)> {
        match &self.purpose {
            Purpose::Claim(claims) | Purpose::Undo(claims) => {
                claims.iter().map(|claim| (claim.block.clone(), claim.offset)).collect()
            }
            Purpose::Release(held) => held.iter().map(|held| (held.block.clone(), held.offset)).collect(),
            Purpose::Recheck(_) | Purpose::Freeze { .. } => Vec::new(),
        }
    }
}

// === impl Seen ===

impl Seen {
    /// Whether this is newer than what was seen before.
    pub(crate) fn is_newer_than(&self, before: Option<&Self>) -> bool {
        before.is_none_or(|before| (before.epoch, before.sequence) < (self.epoch, self.sequence))
    }

    /// Why what was read now cannot be the newest state, if it cannot.
    pub(crate) fn contradicts(&self, now: &Self) -> Option<String> {
        if (now.epoch, now.sequence) < (self.epoch, self.sequence) {
            return Some(format!(
                "it is older (epoch {}, sequence {}) than what this host has seen (epoch {}, sequence {})",
                now.epoch, now.sequence, self.epoch, self.sequence
            ));
        }
        (now.epoch == self.epoch && now.identity != self.identity).then(|| "it was deleted and made again".to_owned())
    }
}

// === impl Past ===

impl Past {
    /// The address.
    #[must_use]
    pub fn address(&self) -> crate::Address {
        self.block.address_at(self.offset)
    }
}
