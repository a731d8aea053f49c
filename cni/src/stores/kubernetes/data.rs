//! The field `data`: a record of the engine with the identity of its cluster, compressed, as text.
//!
//! Before it is compressed (zlib) and written in base 85 it is a version byte, the cluster's identity (16 bytes) and the record.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::base85;

/// The version that is written.
const VERSION: u8 = 1;

/// More than any record has. What would unpack to more is not one of ours.
const LONGEST: u64 = 16 << 20;

/// How many bytes are looked at to say whether they are random, and how many different ones they must have: 221 of 256
/// are expected of random bytes, and texts have less than a hundred.
const CHUNK: usize = 512;
const RANDOM: usize = 170;

/// What tells a cluster from every other one: the UID of its namespace `kube-system`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ClusterId([u8; 16]);

/// Why a field `data` cannot be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum DataError {
    /// It is of another cluster.
    Foreign(ClusterId),
    /// It is not what was written.
    Unsound(String),
}

// === impl ClusterId ===

impl ClusterId {
    /// Reads a UID, as in `metadata.uid`.
    #[must_use]
    pub(super) fn parse(uid: &str) -> Option<Self> {
        let digits: String = uid.chars().filter(|character| *character != '-').collect();
        (uid.len() == 36 && digits.len() == 32)
            .then(|| u128::from_str_radix(&digits, 16).ok())
            .flatten()
            .map(|number| Self(number.to_be_bytes()))
    }
}

impl std::fmt::Display for ClusterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = format!("{:032x}", u128::from_be_bytes(self.0));
        let mut rest = digits.as_str();
        for (at, n) in [8, 4, 4, 4, 12].into_iter().enumerate() {
            let (part, after) = rest.split_at(n);
            write!(f, "{}{part}", if at == 0 { "" } else { "-" })?;
            rest = after;
        }
        Ok(())
    }
}

/// The field for a record of this cluster.
pub(super) fn write(cluster: ClusterId, record: &[u8]) -> Result<String, String> {
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(record.len()), Compression::new(6));
    let (guessable, random) = record.split_at(random_tail(record));
    let mut put = || {
        encoder.write_all(&[VERSION])?;
        encoder.write_all(&cluster.0)?;
        encoder.write_all(guessable)?;
        // Each part gets a code of its own: with one for both, the texts would be packed as badly as the digits.
        encoder.flush()?;
        encoder.write_all(random)
    };
    put().map_err(|error| error.to_string())?;
    Ok(base85::encode(&encoder.finish().map_err(|error| error.to_string())?))
}

/// Where the part of a record begins that cannot be packed: digits of ids, which a block has at its end.
fn random_tail(record: &[u8]) -> usize {
    let is_random = |chunk: &&[u8]| {
        let mut seen = [false; 256];
        for byte in *chunk {
            if let Some(seen) = seen.get_mut(usize::from(*byte)) {
                *seen = true;
            }
        }
        seen.into_iter().filter(|seen| *seen).count() >= RANDOM
    };
    let random = record.rchunks_exact(CHUNK).take_while(is_random).count();
    record.len().saturating_sub(random.saturating_mul(CHUNK))
}

/// The record in a field of this cluster.
pub(super) fn read(cluster: ClusterId, field: &str) -> Result<Vec<u8>, DataError> {
    let unsound = |reason: &str| DataError::Unsound(format!("its field spec.data {reason}"));
    let packed = base85::decode(field).ok_or_else(|| unsound("is no base 85: it was changed by hand, or cut off"))?;
    let mut bytes = Vec::new();
    ZlibDecoder::new(packed.as_slice())
        .take(LONGEST)
        .read_to_end(&mut bytes)
        .map_err(|_| unsound("cannot be unpacked: it was changed by hand, or cut off"))?;
    let (&version, rest) = bytes.split_first().ok_or_else(|| unsound("is empty"))?;
    if version > VERSION {
        let text =
            format!("has format {version}, and this version of whereabouts reads up to {VERSION}; use a newer one");
        return Err(unsound(&text));
    }
    let (id, record) = rest.split_first_chunk().ok_or_else(|| unsound("is cut off"))?;
    if ClusterId(*id) != cluster {
        return Err(DataError::Foreign(ClusterId(*id)));
    }
    Ok(record.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HERE: ClusterId = ClusterId([1; 16]);

    #[test]
    fn a_uid_is_read_and_written() {
        let uid = "0b6f6d0e-3d0a-4f5c-9a3b-7f1e2d3c4b5a";
        assert_eq!(ClusterId::parse(uid).unwrap().to_string(), uid);
        for wrong in ["", "0b6f6d0e", "0b6f6d0e-3d0a-4f5c-9a3b-7f1e2d3c4b5x", "0b6f6d0e3d0a4f5c9a3b7f1e2d3c4b5a"] {
            assert_eq!(ClusterId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn another_clusters_record_is_told() {
        let field = write(ClusterId([2; 16]), b"record").unwrap();
        assert_eq!(read(HERE, &field), Err(DataError::Foreign(ClusterId([2; 16]))));
    }

    #[test]
    fn a_newer_format_says_so() {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&[VERSION + 1; 40]).unwrap();
        let field = base85::encode(&encoder.finish().unwrap());
        let Err(DataError::Unsound(reason)) = read(HERE, &field) else { panic!("it was read") };
        assert!(reason.contains("newer"), "{reason}");
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(record: Vec<u8>) {
            prop_assert_eq!(read(HERE, &write(HERE, &record).unwrap()), Ok(record));
        }

        #[test]
        fn any_text_is_an_error_and_no_panic(field in "[A-Za-z0-9+/=]{0,200}") {
            prop_assert!(read(HERE, &field).is_err());
        }
    }
}
