//! Blocks and indexes as bytes, for stores outside this crate.

use super::{CodecError, Record};
use crate::block::Block;
use crate::index::Index;
use crate::ledger::keys;
use crate::space::{BlockId, Space};

impl Block {
    /// The record that a store keeps for the block `id`.
    ///
    /// ```
    /// use whereabouts_engine::{Address, Block, Family, Network, Space};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let space = Space::shared(Network::unnamed(), Family::V4);
    /// let id = space.block_of("10.0.0.7".parse::<Address>()?).ok_or("not of IPv4")?;
    /// let record = Block::empty(0).to_record(&id)?;
    /// assert_eq!(Block::from_record(&id, &record)?, Block::empty(0));
    ///
    /// // The record of one block is none of another.
    /// let other = space.block_of("10.0.1.7".parse::<Address>()?).ok_or("not of IPv4")?;
    /// assert!(Block::from_record(&other, &record).is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CodecError`] when the block has a name that is too long to be stored.
    pub fn to_record(&self, id: &BlockId) -> Result<Vec<u8>, CodecError> {
        self.encode(&keys::block(id))
    }

    /// The block `id` that a store has kept.
    ///
    /// # Errors
    /// [`CodecError`] when the record is damaged, of a newer format, or that of another block.
    pub fn from_record(id: &BlockId, record: &[u8]) -> Result<Self, CodecError> {
        Self::decode(&keys::block(id), record)
    }
}

impl Index {
    /// The record that a store keeps for the index of `space`.
    ///
    /// # Errors
    /// [`CodecError`] when it lists a block that the space cannot have.
    pub fn to_record(&self, space: &Space) -> Result<Vec<u8>, CodecError> {
        self.encode(&keys::space(space))
    }

    /// The index of `space` that a store has kept.
    ///
    /// # Errors
    /// [`CodecError`] when the record is damaged, of a newer format, or that of another space.
    pub fn from_record(space: &Space, record: &[u8]) -> Result<Self, CodecError> {
        Self::decode(&keys::space(space), record)
    }
}
