//! Records against what `docs/format.md` promises: one encoding per value, exact, and told apart from damage.

mod arbitrary;
mod canonical;
mod golden;
mod mirror;
mod size;

use std::fmt::Debug;

use proptest::prelude::*;

use self::arbitrary::*;
use super::{CodecError, FORMAT, HEADER, Kind, Record, seal};
use crate::ledger::keys;

fn is_elsewhere<T>(read: Result<T, CodecError>) -> bool {
    matches!(read, Err(CodecError::Checksum { .. }))
}

/// What holds for every value under every key.
fn check_laws<R: Record + Debug + PartialEq>(key: &[u8], value: &R) -> Result<(), TestCaseError> {
    let record = value.encode(key).unwrap();
    let read = R::decode(key, &record);
    prop_assert_eq!(read.as_ref(), Ok(value));
    prop_assert_eq!(read.unwrap().encode(key).unwrap(), record.clone());

    // Under no other key is it sound, be it longer, shorter or just another one.
    let mut other = key.to_vec();
    other.push(0);
    prop_assert!(is_elsewhere(R::decode(&other, &record)));
    if let Some((last, shorter)) = key.split_last() {
        prop_assert!(is_elsewhere(R::decode(shorter, &record)));
        let other = [shorter, &[last ^ 1]].concat();
        prop_assert!(is_elsewhere(R::decode(&other, &record)));
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_block_is_read_as_it_was_written(id in any_block_id(), block in any_block()) {
        check_laws(&keys::block(&id), &block)?;
    }

    #[test]
    fn an_index_is_read_as_it_was_written((space, index) in any_index()) {
        check_laws(&keys::space(&space), &index)?;
    }

    #[test]
    fn an_attachment_is_read_as_it_was_written(attachment in any_attachment(), row in any_attachment_row()) {
        check_laws(&keys::attachment(&attachment), &row)?;
    }

    #[test]
    fn an_owner_is_read_as_it_was_written(space in any_space(), owner in any_owner(), row in any_owner_row()) {
        check_laws(&keys::owner(&space, &owner, "eth0").unwrap_or_default(), &row)?;
    }

    #[test]
    fn an_intent_is_read_as_it_was_written(operation in any::<[u8; 8]>(), intent in any_intent()) {
        check_laws(&operation, &intent)?;
    }

    #[test]
    fn what_was_seen_is_read_as_it_was_written(id in any_block_id(), seen in any_seen()) {
        check_laws(&keys::block(&id), &seen)?;
        check_laws(&keys::space(&id.space), &seen)?;
    }

    #[test]
    fn history_is_read_as_it_was_written((key, past) in any_past()) {
        check_laws(&key, &past)?;
    }

    #[test]
    fn the_meta_table_is_read_as_it_was_written(
        identity in any_identity(),
        host in any_host(),
        store in any_store(),
        net in any_net(),
        network in any_network(),
        sharing in any_sharing(),
    ) {
        check_laws(b"identity", &identity)?;
        check_laws(b"host", &host)?;
        check_laws(b"store", &store)?;
        check_laws(&keys::sharing(&crate::Pool::new(network, net)), &sharing)?;
    }

    /// Bytes from anywhere are an error, and never a panic.
    #[test]
    fn any_bytes_are_no_record(key: Vec<u8>, bytes: Vec<u8>) {
        for kind in crate::testing::RecordKind::ALL {
            prop_assert!(kind.reencode(&key, &bytes).is_err());
        }
    }
}

#[test]
fn a_record_is_not_read_as_another_kind() {
    // The bodies of an owner's row and of nothing else are the same bytes; the kind in the checksum tells them apart.
    let record = seal(FORMAT, Kind::Meta, b"key", &[0]);
    assert!(crate::testing::RecordKind::Sharing.reencode(b"key", &record).is_ok());
    let error = crate::testing::RecordKind::Owner.reencode(b"key", &record).unwrap_err();
    assert!(matches!(error, CodecError::Checksum { .. }), "{error}");
}

#[test]
fn a_newer_format_says_so() {
    let record = seal(FORMAT + 1, Kind::Owner, b"key", b"what a later version writes");
    let error = super::OwnerRow::decode(b"key", &record).unwrap_err();
    assert_eq!(error, CodecError::NewerFormat { found: FORMAT + 1, known: FORMAT });
    assert_eq!(
        error.to_string(),
        "the record has format 2, and this version of whereabouts reads up to 1; use a newer one"
    );
    // A flipped bit in the version is damage, and does not send people looking for a newer version.
    let mut record = super::OwnerRow::default().encode(b"key").unwrap();
    record[0] = FORMAT + 1;
    assert!(matches!(super::OwnerRow::decode(b"key", &record), Err(CodecError::Checksum { .. })));
    let zero = seal(0, Kind::Owner, b"key", &[0]);
    assert!(matches!(super::OwnerRow::decode(b"key", &zero), Err(CodecError::Malformed { .. })));
}

#[test]
fn what_is_too_short_says_so() {
    for bytes in 0..HEADER {
        let error = super::OwnerRow::decode(b"key", &[1; HEADER][..bytes]).unwrap_err();
        assert_eq!(error, CodecError::TooShort { bytes });
    }
}
