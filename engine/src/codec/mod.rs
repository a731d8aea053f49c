//! The bytes of every record: the one place that knows them.
//!
//! A record is a version byte, a checksum and a body in the bincode wire format with variable-length integers.
//! The checksum covers the version, the kind of the record and the key under which it is stored, so that a record
//! that was damaged, truncated or moved under another key is told from a sound one. There is one encoding per
//! value: what does not encode to the same bytes again is refused. `docs/format.md` has every byte.

mod block;
mod index;
mod parts;
mod records;
mod rows;
#[cfg(test)]
mod tests;
mod waiting;

pub(crate) use self::rows::{OwnerAddress, OwnerRow, SpooledRelease};
pub(crate) use self::waiting::{Served, WaitingRequest};

use wincode::config::Configuration;
use wincode::int_encoding::{LittleEndian, VarInt};
use wincode::len::BincodeLen;
use wincode::{SchemaRead, SchemaWrite};

/// The version that is written; older ones are read.
pub(crate) const FORMAT: u8 = 1;

/// The version byte and the checksum.
pub(crate) const HEADER: usize = 5;

/// What a record is; part of its checksum.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Block = 1,
    Index = 2,
    Attachment = 3,
    Owner = 4,
    Intent = 5,
    Seen = 6,
    History = 7,
    Meta = 8,
    Spooled = 9,
    Waiting = 10,
    Served = 11,
}

/// Bytes that are no sound record.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Shorter than a version and a checksum.
    #[error("the record has {bytes} bytes, too few for a version and a checksum")]
    TooShort {
        /// How many there are.
        bytes: usize,
    },
    /// Written by a newer version of this program.
    #[error("the record has format {found}, and this version of whereabouts reads up to {known}; use a newer one")]
    NewerFormat {
        /// The format found.
        found: u8,
        /// The newest format that this version reads.
        known: u8,
    },
    /// The bytes are not the ones that were written, or not where they were written.
    #[error("the record's checksum is {computed:08x} where {stored:08x} was stored; it was damaged or moved")]
    Checksum {
        /// The checksum in the record.
        stored: u32,
        /// The checksum of the bytes as they are.
        computed: u32,
    },
    /// The checksum is right, but what it covers is no value of this kind.
    #[error("the record's body cannot be read: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
}

/// Little-endian, variable-length integers and lengths: what bincode calls its standard configuration.
pub(crate) type Wire = Configuration<true, { 4 << 20 }, BincodeLen, LittleEndian, VarInt>;
const WIRE: Wire = Configuration::default().with_varint_encoding();

/// A value that is stored as a record.
///
/// Stored types are their own structs, converted from what they stand for, so that a change of one is never an
/// accidental change of the other.
pub(crate) trait Record: Sized {
    /// The kind, so that a record of one kind is never read as one of another.
    const KIND: Kind;
    /// The stored type.
    type Stored: SchemaWrite<Wire, Src = Self::Stored> + for<'de> SchemaRead<'de, Wire, Dst = Self::Stored>;

    /// Whether a value can be meant by what stands under `key`. A sound record always can; one that cannot was made
    /// by a program that is wrong about one of the two.
    fn belongs_under(&self, key: &[u8]) -> bool {
        let _ = key;
        true
    }

    /// What is stored for this value.
    fn to_stored(&self) -> Result<Self::Stored, CodecError>;

    /// The value that was stored.
    fn from_stored(stored: Self::Stored) -> Result<Self, CodecError>;

    /// The record of this value under `key`.
    fn encode(&self, key: &[u8]) -> Result<Vec<u8>, CodecError> {
        if !self.belongs_under(key) {
            return Err(malformed(MISPLACED));
        }
        Ok(seal(FORMAT, Self::KIND, key, &body(self)?))
    }

    /// The value of the record that was found under `key`.
    fn decode(key: &[u8], record: &[u8]) -> Result<Self, CodecError> {
        let bytes = open(Self::KIND, key, record)?;
        let value = Self::from_stored(wincode::config::deserialize_exact(bytes, WIRE).map_err(malformed)?)?;
        if !value.belongs_under(key) {
            return Err(malformed(MISPLACED));
        }
        if body(&value)? != bytes {
            return Err(malformed("it is not the one encoding of its value"));
        }
        Ok(value)
    }
}

const MISPLACED: &str = "its value does not belong under its key";

fn body<R: Record>(value: &R) -> Result<Vec<u8>, CodecError> {
    wincode::config::serialize(&value.to_stored()?, WIRE).map_err(malformed)
}

/// The record with this body.
pub(crate) fn seal(version: u8, kind: Kind, key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER + body.len());
    record.push(version);
    record.extend(checksum(version, kind, key, body).to_le_bytes());
    record.extend(body);
    record
}

/// The body of a record that is whole, in its place, and of a format that this version reads.
///
/// The checksum comes first: every format has it at this place, so a damaged version byte is told from a newer one.
fn open<'r>(kind: Kind, key: &[u8], record: &'r [u8]) -> Result<&'r [u8], CodecError> {
    let too_short = CodecError::TooShort { bytes: record.len() };
    let Some((&version, rest)) = record.split_first() else { return Err(too_short) };
    let Some((stored, body)) = rest.split_first_chunk() else { return Err(too_short) };
    let stored = u32::from_le_bytes(*stored);
    let computed = checksum(version, kind, key, body);
    if stored != computed {
        return Err(CodecError::Checksum { stored, computed });
    }
    match version {
        0 => Err(malformed("there is no format 0")),
        FORMAT => Ok(body),
        found => Err(CodecError::NewerFormat { found, known: FORMAT }),
    }
}

fn checksum(version: u8, kind: Kind, key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[version, kind as u8]);
    hasher.update(&u64::try_from(key.len()).unwrap_or(u64::MAX).to_le_bytes());
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

fn malformed(reason: impl ToString) -> CodecError {
    CodecError::Malformed { reason: reason.to_string() }
}
