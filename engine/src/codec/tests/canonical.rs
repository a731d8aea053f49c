//! One encoding per value: every other way to say the same thing is refused, however right its checksum is.

use roaring::RoaringBitmap;

use super::super::{CodecError, HEADER};
use super::golden::fixture;
use super::mirror::{
    StoredBitmap, StoredBlock, StoredBlockOwner, StoredBlockText, StoredIndex, StoredNet, from_bincode, to_bincode,
};
use crate::testing::RecordKind;

#[track_caller]
fn refuse(kind: RecordKind, key: &[u8], body: &[u8], what: &str) {
    match kind.reencode(key, &kind.seal(key, body)) {
        Err(CodecError::Malformed { reason }) if reason.contains(what) => {}
        other => panic!("{kind:?} should be refused because of {what:?}, and not {other:?}"),
    }
}

const OTHER_ENCODING: &str = "not the one encoding";

/// Changes the golden block, of which this would be another encoding, or none.
#[track_caller]
fn refuse_block(change: impl FnOnce(&mut StoredBlock), what: &str) {
    let golden = fixture("block", RecordKind::Block);
    let mut block: StoredBlock = from_bincode(&golden.record[HEADER..]);
    change(&mut block);
    refuse(RecordKind::Block, &golden.key, &to_bincode(&block), what);
}

#[track_caller]
fn refuse_index(change: impl FnOnce(&mut StoredIndex), what: &str) {
    let golden = fixture("index", RecordKind::Index);
    let mut index: StoredIndex = from_bincode(&golden.record[HEADER..]);
    change(&mut index);
    refuse(RecordKind::Index, &golden.key, &to_bincode(&index), what);
}

fn bitmap(members: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let mut bytes = Vec::new();
    RoaringBitmap::from_iter(members).serialize_into(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_number_has_no_longer_form() {
    let (kind, key, operation) = (RecordKind::Owner, b"key", [9; 8]);
    let owner = |number: &[u8]| [number, &operation].concat();
    let sound = kind.seal(key, &owner(&[1, 5]));
    assert_eq!(kind.reencode(key, &sound), Ok(sound.clone()));
    // 5 as a 16-, 32-, 64- and 128-bit number, and a length of 1 as a 16-bit one.
    for longer in [
        &[1, 251, 5, 0][..],
        &[1, 252, 5, 0, 0, 0],
        &[1, 253, 5, 0, 0, 0, 0, 0, 0, 0],
        &[1, 254, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[251, 1, 0, 5],
    ] {
        refuse(kind, key, &owner(longer), OTHER_ENCODING);
    }
    refuse(kind, key, &owner(&[1, 255, 5, 0]), "");
}

#[test]
fn a_bool_and_an_option_are_zero_or_one() {
    refuse(RecordKind::Sharing, b"key", &[2], "");
    let golden = fixture("index", RecordKind::Index);
    let frozen_at = HEADER + 4;
    assert_eq!(golden.record[frozen_at], 1);
    let mut body = golden.record[HEADER..].to_vec();
    body[frozen_at - HEADER] = 2;
    refuse(RecordKind::Index, &golden.key, &body, "");
}

#[test]
fn a_bitmap_is_in_its_smallest_form() {
    let every = || (0..256).map(|_| from_bincode::<StoredBlock>(&fixture("block", RecordKind::Block).record[HEADER..]));
    // All offsets of a full block are one run of four bytes, never an array of 512.
    refuse_block(
        |block| {
            let one = every().next().unwrap();
            block.used = bitmap(0..256);
            block.states = vec![one.states[0]; 256];
            block.operations = vec![one.operations[0]; 256];
            block.containers = vec![one.containers[0].clone(); 256];
            block.interfaces = vec![one.interfaces[0]; 256];
            block.networks = vec![one.networks[0]; 256];
            block.owners = vec![one.owners[0].clone(); 256];
            block.nodes = vec![one.nodes[0]; 256];
            block.lease_boots = vec![one.lease_boots[0]; 256];
            block.lease_pools = vec![one.lease_pools[0]; 256];
            block.providers = vec![one.providers[0]; 256];
            block.since_after = vec![0; 256];
            block.digits = one.digits.repeat(256);
            block.texts.truncate(4);
        },
        OTHER_ENCODING,
    );
    refuse_index(|index| index.existing[0].low = bitmap(0..100), OTHER_ENCODING);
    // The same set as a bitmap of 8 KiB, which roaring reads as any other.
    let mut run = RoaringBitmap::new();
    run.insert_range(0..5000);
    run.remove_run_compression();
    let mut bytes = Vec::new();
    run.serialize_into(&mut bytes).unwrap();
    refuse_index(|index| index.existing[0].low = bytes, OTHER_ENCODING);
}

#[test]
fn a_bitmap_ends_where_its_bytes_end() {
    refuse_index(|index| index.existing[0].low.push(0), "bytes follow a bitmap");
    refuse_block(|block| block.used.push(0), "bytes follow a bitmap");
    refuse_block(|block| block.used.truncate(10), "");
    // What roaring does not look at: the offset header, and the count of a run container.
    let at = 8 + 4;
    refuse_block(|block| block.used[at] ^= 1, OTHER_ENCODING);
}

#[test]
fn the_parts_of_an_index_ascend_and_are_not_empty() {
    refuse_index(|index| index.existing.reverse(), OTHER_ENCODING);
    refuse_index(|index| index.existing.push(index.existing[0].clone()), "double");
    refuse_index(|index| index.full[0].low = bitmap([]), "empty");
    refuse_index(|index| index.reported = vec!["b".to_owned(), "a".to_owned()], "one encoding");
    refuse_index(|index| index.reported = vec!["a".to_owned(); 2], "one encoding");
    refuse_index(|index| index.full.push(StoredBitmap { high: 1 << 88, low: bitmap([1]) }), "impossible");
}

#[test]
fn an_index_has_no_block_beyond_its_family() {
    let key = crate::ledger::keys::space(&crate::Space::shared(crate::Network::unnamed(), crate::Family::V4));
    let index = |number: u32| StoredIndex {
        sequence: 1,
        epoch: 0,
        frozen: None,
        reported: Vec::new(),
        existing: vec![StoredBitmap { high: 0, low: bitmap([number]) }],
        full: Vec::new(),
        full_but_zero: Vec::new(),
    };
    let kind = RecordKind::Index;
    let last = kind.seal(&key, &to_bincode(&index((1 << 24) - 1)));
    assert_eq!(kind.reencode(&key, &last), Ok(last.clone()));
    refuse(kind, &key, &to_bincode(&index(1 << 24)), "does not belong");
}

#[test]
fn a_past_lease_stands_under_the_key_that_it_names() {
    let golden = fixture("history", RecordKind::Past);
    let mut other = golden.key.clone();
    *other.last_mut().unwrap() ^= 1;
    refuse(RecordKind::Past, &other, &golden.record[HEADER..], "does not belong");
}

#[test]
fn a_dictionary_is_in_the_order_of_first_use() {
    let swapped = |place: u32| match place {
        0 => 1,
        1 => 0,
        place => place,
    };
    refuse_block(
        |block| {
            block.texts.swap(0, 1);
            for place in block.interfaces.iter_mut().chain(&mut block.networks).chain(&mut block.nodes) {
                *place = swapped(*place);
            }
        },
        OTHER_ENCODING,
    );
    refuse_block(|block| block.texts.push("nobody uses this".to_owned()), OTHER_ENCODING);
    refuse_block(
        |block| {
            block.texts.push(block.texts[0].clone());
            block.interfaces[0] = u32::try_from(block.texts.len() - 1).unwrap();
        },
        OTHER_ENCODING,
    );
    refuse_block(|block| block.nodes[0] = 1000, "no place 1000");
    refuse_block(|block| block.lease_boots[0] = 3, "no place 2");
    refuse_block(|block| block.providers[0] = u32::MAX, "no place");
}

#[test]
fn columns_are_as_long_as_the_used_set() {
    refuse_block(|block| block.states.truncate(1), "columns");
    refuse_block(|block| block.since_after.truncate(1), "columns");
    refuse_block(|block| block.owners.push(StoredBlockOwner::Container), "columns");
    refuse_block(|block| block.used = bitmap([1]), "columns");
    refuse_block(|block| block.used = bitmap([1, 256]), "beyond the block");
}

#[test]
fn covered_leases_ascend_and_somebody_stands_on_them() {
    let StoredBlock { covered, .. } = from_bincode(&fixture("block-wide", RecordKind::Block).record[HEADER..]);
    let place = |offsets: &[u8]| {
        let mut covered = covered.clone();
        covered.truncate(offsets.len());
        covered.iter_mut().zip(offsets).for_each(|(covered, offset)| covered.offset = *offset);
        move |block: &mut StoredBlock| block.covered = covered
    };
    refuse_block(place(&[2]), "out of place");
    refuse_block(place(&[7, 1]), "out of place");
}

#[test]
fn times_count_from_the_earliest() {
    refuse_block(
        |block| {
            block.since -= 1;
            block.since_after.iter_mut().for_each(|after| *after += 1);
        },
        OTHER_ENCODING,
    );
    refuse_block(|block| block.since_after[1] = u64::MAX, OTHER_ENCODING);
}

#[test]
fn a_text_is_in_its_shortest_shape() {
    let container = |text: StoredBlockText, digits: Vec<u8>| {
        move |block: &mut StoredBlock| {
            let before = match block.containers[0] {
                StoredBlockText::Plain(_) => 0,
                StoredBlockText::Hex(n) => n as usize,
                StoredBlockText::Uuid => 16,
            };
            block.digits.splice(..before, digits);
            block.containers[0] = text;
        }
    };
    let plain = |text: &str| StoredBlockText::Plain(text.to_owned());
    refuse_block(container(plain("0123456789abcdef"), Vec::new()), OTHER_ENCODING);
    refuse_block(container(plain("6c0e5f0a-1b2c-4d3e-8f90-a1b2c3d4e5f6"), Vec::new()), OTHER_ENCODING);
    refuse_block(container(StoredBlockText::Hex(7), vec![0; 7]), OTHER_ENCODING);
    refuse_block(container(StoredBlockText::Hex(0), Vec::new()), OTHER_ENCODING);
}

#[test]
fn digits_are_as_many_as_the_texts_say() {
    refuse_block(|block| block.digits.push(1), "belong to nothing");
    refuse_block(|block| block.digits.truncate(47), "missing");
}

#[test]
fn a_network_has_no_host_bits() {
    refuse_block(|block| block.pools[0] = StoredNet::V4([10, 0, 0, 1], 24), OTHER_ENCODING);
    refuse_block(|block| block.pools[0] = StoredNet::V4([10, 0, 0, 0], 33), "");
    refuse_block(|block| block.pools[0] = StoredNet::V6([0; 16], 129), "");
}

/// A length that no input could fill is refused before anything is allocated for it.
#[test]
fn a_hostile_length_is_refused() {
    let huge: [&[u8]; 5] = [
        &[251, 0xff, 0xff],
        &[252, 0xff, 0xff, 0xff, 0xff],
        &[253, 0, 0, 0, 0, 1, 0, 0, 0],
        &[253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        &[253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ];
    for name in ["block", "block-wide", "index", "attachment", "owner", "intent-claim", "intent-release", "history"] {
        let kind = match name.split('-').next().unwrap() {
            "block" => RecordKind::Block,
            "index" => RecordKind::Index,
            "attachment" => RecordKind::Attachment,
            "owner" => RecordKind::Owner,
            "intent" => RecordKind::Intent,
            _ => RecordKind::Past,
        };
        let golden = fixture(name, kind);
        let body = &golden.record[HEADER..];
        for at in 0..body.len() {
            for length in huge {
                // In the place of a length, and of whatever else stands there; with what follows, and as the end.
                for rest in [&body[at + 1..], &[]] {
                    let sealed = kind.seal(&golden.key, &[&body[..at], length, rest].concat());
                    if let Ok(again) = kind.reencode(&golden.key, &sealed) {
                        assert_eq!(again, sealed, "{name} at {at}");
                    }
                }
            }
        }
    }
}
