//! Golden records: what was written once is read for ever, byte for byte.
//!
//! `engine/tests/fixtures/records` holds a key and a record for each kind. When one of these tests fails because the
//! encoding has changed, the format's version must change with it, and the old fixture must still be read.

use std::fmt::Debug;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::super::{CodecError, HEADER, OwnerAddress, OwnerRow, Record};
use crate::address::Family;
use crate::block::{Block, Fullness};
use crate::index::Index;
use crate::intent::{AttachmentRow, Claim, HeldAddress, Intent, Past, Purpose, Seen};
use crate::interval::Range;
use crate::lease::{Attachment, BootId, Lease, LeaseState, OperationId, Owner, Pod};
use crate::ledger::keys;
use crate::ledger::meta::{FullRow, HostRow, IdentityRow, SharingRow, StoreRow};
use crate::offset::{BlockNumber, Offset};
use crate::space::{BlockId, Network, Pool, Sharing, Space};
use crate::store::Version;
use crate::testing::RecordKind;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/records");
const FORMAT_PAGE: &str = include_str!("../../../../docs/format.md");

/// 2026-01-01, in milliseconds since 1970.
const NEW_YEAR: u64 = 1_767_225_600_000;
const BOOT: BootId = BootId::from_bytes([0xb0; 16]);

// === The values ===

fn unnamed_v4() -> Space {
    Space::shared(Network::unnamed(), Family::V4)
}

fn private_v6() -> Space {
    Pool::new(Network::new("blue").unwrap(), "2001:db8::/64".parse().unwrap()).space(Sharing::Private)
}

fn id(space: Space, address: &str) -> BlockId {
    space.block_of(address.parse().unwrap()).unwrap()
}

/// A pod's lease as a runtime makes it.
fn pod_lease() -> Lease {
    Lease {
        state: LeaseState::Active,
        operation: OperationId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8]),
        attachment: Attachment::new("4f1e6f3b9c2a4d5e8f7061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6", "eth0", "blue"),
        owner: Owner::Pod(Pod {
            namespace: "shop".into(),
            name: "web-0".into(),
            uid: Some("6c0e5f0a-1b2c-4d3e-8f90-a1b2c3d4e5f6".into()),
        }),
        node: "node-1".into(),
        boot: Some(BOOT),
        pool: "10.0.0.0/24".parse().unwrap(),
        provider: None,
        since: NEW_YEAR,
    }
}

/// A lease that somebody made on the command line.
fn named_lease() -> Lease {
    Lease {
        state: LeaseState::Active,
        operation: OperationId::from_bytes([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]),
        attachment: Attachment::named("printer"),
        owner: Owner::Named("printer".into()),
        node: "node-1".into(),
        boot: None,
        pool: "10.0.0.0/24".parse().unwrap(),
        provider: None,
        since: NEW_YEAR + 1500,
    }
}

fn sticky_lease(state: LeaseState) -> Lease {
    Lease {
        state,
        operation: OperationId::from_bytes([0xff; 8]),
        attachment: Attachment::new("not hexadecimal", "net1", ""),
        owner: Owner::Sticky {
            name: "the database".into(),
            pod: Some(Pod { namespace: "shop".into(), name: "db".into(), uid: None }),
        },
        node: "".into(),
        boot: None,
        pool: "2001:db8::/64".parse().unwrap(),
        provider: Some("ipam-pool-7".into()),
        since: 0,
    }
}

/// The block that `docs/format.md` takes apart.
fn block() -> (BlockId, Block) {
    let used = RoaringBitmap::from_iter([1, 7]);
    let block = Block::from_parts(300, 0, false, used, vec![pod_lease(), named_lease()], Vec::new()).unwrap();
    (id(unnamed_v4(), "10.0.0.0"), block)
}

/// A frozen block of IPv6 with a run of offsets, every state, owners of every kind, and leases that were taken over.
fn wide_block() -> (BlockId, Block) {
    let states = [LeaseState::Active, LeaseState::Pending, LeaseState::Releasing, LeaseState::Quarantined];
    let container = |state| Lease {
        owner: Owner::Container,
        boot: Some(BOOT),
        since: NEW_YEAR,
        provider: None,
        ..sticky_lease(state)
    };
    let leases = states.map(sticky_lease).into_iter().chain(states.map(container)).collect();
    let mut used = RoaringBitmap::new();
    used.insert_range(0..8);
    let covered = [(1, LeaseState::Active), (1, LeaseState::Pending), (7, LeaseState::Active)];
    let covered = covered.map(|(offset, state)| (Offset::from(offset), container(state))).into();
    let block = Block::from_parts(u64::MAX, 70_000, true, used, leases, covered).unwrap();
    (id(private_v6(), "2001:db8::ff00"), block)
}

fn index() -> (Space, Index) {
    let mut index = Index::empty(3);
    index.sequence = 251;
    index.frozen = Some("block 10.0.0.0/24 is listed in the index and gone".to_owned());
    index.reported = ["node-1".into(), "node-2".into()].into();
    for number in (0..100).chain([70_000, 1 << 32, (1 << 120) - 1]) {
        index.existing.insert(BlockNumber::new(Family::V6, number).unwrap());
    }
    index.set_mark(BlockNumber::new(Family::V6, 7).unwrap(), Fullness::Full);
    index.set_mark(BlockNumber::new(Family::V6, 8).unwrap(), Fullness::FullButZero);
    (private_v6(), index)
}

fn attachment() -> (Attachment, AttachmentRow) {
    let held = |space: Space, address: &str, lease: Option<Lease>| HeldAddress {
        block: id(space, address),
        offset: Offset::of(address.parse().unwrap()),
        operation: OperationId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8]),
        lease,
    };
    let row = AttachmentRow {
        store: "kubernetes".into(),
        boot: BOOT,
        recorded: 123_456,
        held: vec![held(unnamed_v4(), "10.0.0.1", Some(pod_lease())), held(private_v6(), "2001:db8::ff07", None)],
    };
    (pod_lease().attachment, row)
}

fn claim(previous: Option<Lease>) -> Claim {
    Claim {
        block: id(unnamed_v4(), "10.0.0.0"),
        offset: Offset::from(1),
        expected: Version::from_bytes(b"4711"),
        previous,
    }
}

fn intent(purpose: Purpose) -> Intent {
    Intent { attachment: pod_lease().attachment, store: "etcd".into(), boot: BOOT, opened: 99, purpose }
}

fn past() -> Past {
    Past { block: id(unnamed_v4(), "10.0.0.0"), offset: Offset::from(1), lease: pod_lease(), until: NEW_YEAR + 60_000 }
}

// === Fixtures ===

pub(super) struct Golden {
    name: String,
    kind: RecordKind,
    pub(super) key: Vec<u8>,
    pub(super) record: Vec<u8>,
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0, "an odd number of digits: {text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

pub(super) fn fixture(name: &str, kind: RecordKind) -> Golden {
    let text = std::fs::read_to_string(format!("{FIXTURES}/{name}.txt")).unwrap();
    let field = |field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("the fixture has this line");
        from_hex(line.trim())
    };
    Golden { name: name.to_owned(), kind, key: field("key"), record: field("record") }
}

/// Every fixture that there is.
fn fixtures() -> Vec<Golden> {
    let kind = |name: &str| match name.split('-').next().unwrap() {
        "block" => RecordKind::Block,
        "index" => RecordKind::Index,
        "attachment" => RecordKind::Attachment,
        "owner" => RecordKind::Owner,
        "intent" => RecordKind::Intent,
        "seen" => RecordKind::Seen,
        "history" => RecordKind::Past,
        "identity" => RecordKind::Identity,
        "host" => RecordKind::Host,
        "store" => RecordKind::Store,
        "sharing" => RecordKind::Sharing,
        "full" => RecordKind::Full,
        other => panic!("no kind {other}"),
    };
    let mut names: Vec<String> = std::fs::read_dir(FIXTURES)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().trim_end_matches(".txt").to_owned())
        .collect();
    names.sort();
    names.iter().map(|name| fixture(name, kind(name))).collect()
}

#[track_caller]
fn check<R: Record + Debug + PartialEq>(name: &str, key: &[u8], value: &R) {
    let record = value.encode(key).unwrap();
    let golden = std::fs::read_to_string(format!("{FIXTURES}/{name}.txt")).unwrap_or_default();
    let now = format!("key {}\nrecord {}\n", to_hex(key), to_hex(&record));
    assert_eq!(now, golden, "the encoding of {name} has changed");
    assert_eq!(R::decode(key, &record).as_ref(), Ok(value));
}

#[test]
fn the_encoding_of_every_kind_stays() {
    let (id, value) = block();
    check("block", &keys::block(&id), &value);
    check("block-empty", &keys::block(&id), &Block::empty(0));
    let (id, value) = wide_block();
    check("block-wide", &keys::block(&id), &value);
    let (space, value) = index();
    check("index", &keys::space(&space), &value);
    let (of, value) = attachment();
    check("attachment", &keys::attachment(&of), &value);
    let lease = pod_lease();
    let owner = keys::owner(&unnamed_v4(), &lease.owner, &lease.attachment.interface).unwrap();
    check(
        "owner",
        &owner,
        &OwnerRow {
            addresses: [0x0a00_0001, u128::MAX]
                .map(|address| OwnerAddress { address, operation: lease.operation })
                .into(),
        },
    );
    let operation = lease.operation.to_bytes();
    check("intent-claim", &operation, &intent(Purpose::Claim(vec![claim(None), claim(Some(lease.clone()))])));
    check("intent-undo", &operation, &intent(Purpose::Undo(vec![claim(None)])));
    check("intent-release", &operation, &intent(Purpose::Release(attachment().1.held)));
    check("intent-recheck", &operation, &intent(Purpose::Recheck(vec![id.clone()])));
    let freeze = Purpose::Freeze { space: private_v6(), epoch: 3, reason: "it is older".to_owned() };
    check("intent-freeze", &operation, &intent(freeze));
    let seen = Seen { epoch: 1, sequence: 65_536, identity: b"uid".to_vec() };
    check("seen-block", &keys::block(&id), &seen);
    check("seen-index", &keys::space(&id.space), &seen);
    let past = past();
    check("history", &keys::history(past.until, past.lease.operation, &past.block, past.offset.get()), &past);
    let machine: Arc<str> = "0123456789abcdef0123456789abcdef".into();
    check("identity", b"identity", &IdentityRow { machine, random: [0x5a; 16], created: NEW_YEAR });
    check("host", b"host", &HostRow { boot: BOOT, pid_namespace: 4_026_531_836 });
    let pool = Pool::new(Network::new("blue").unwrap(), "2001:db8::/64".parse().unwrap());
    let store = StoreRow {
        identity: "0b6f6d0e-3d0a-4f5c-9a3b-7f1e2d3c4b5a".into(),
        address: "/etc/cni/net.d/whereabouts.d/whereabouts.kubeconfig".into(),
        is_complete: true,
    };
    check("store", b"store", &store);
    check("sharing", &keys::sharing(&pool), &SharingRow(Sharing::Private));
    let ends = ["10.0.0.1", "10.0.0.254"].map(|address| address.parse().unwrap());
    let range = Range::new(ends[0], ends[1]).unwrap();
    check("full", &keys::full(&unnamed_v4(), range), &FullRow { held: 254, boot: BOOT, found: 123_456 });
}

#[test]
fn every_golden_record_is_read_and_written_again() {
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), 19, "one for each kind and shape");
    for Golden { name, kind, key, record } in fixtures {
        assert_eq!(kind.reencode(&key, &record), Ok(record.clone()), "{name}");
    }
}

// === Damage ===

#[test]
fn every_truncation_is_an_error() {
    for Golden { name, kind, key, record } in fixtures() {
        for end in 0..record.len() {
            assert!(kind.reencode(&key, &record[..end]).is_err(), "{name} ends at {end}");
        }
        // Nor does the body end early where the checksum is right.
        for end in HEADER..record.len() {
            let sealed = kind.seal(&key, &record[HEADER..end]);
            assert!(kind.reencode(&key, &sealed).is_err(), "the body of {name} ends at {end}");
        }
    }
}

#[test]
fn every_trailing_byte_is_an_error() {
    for Golden { name, kind, key, mut record } in fixtures() {
        for byte in 0..=u8::MAX {
            record.push(byte);
            assert!(kind.reencode(&key, &record).is_err(), "{name} and {byte}");
            let sealed = kind.seal(&key, &record[HEADER..]);
            assert!(kind.reencode(&key, &sealed).is_err(), "the body of {name} and {byte}");
            record.pop();
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    for Golden { name, kind, key, mut record } in fixtures() {
        for bit in 0..record.len() * 8 {
            record[bit / 8] ^= 1 << (bit % 8);
            let error = kind.reencode(&key, &record).expect_err("a flipped bit");
            assert!(matches!(error, CodecError::Checksum { .. }), "{name}, bit {bit}: {error}");
            record[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// Where the checksum is right, a change is another value, or none: never two encodings of one.
#[test]
fn every_changed_byte_under_a_right_checksum_is_another_value_or_none() {
    for Golden { name, kind, key, record } in fixtures() {
        let mut body = record[HEADER..].to_vec();
        for at in 0..body.len() {
            let was = body[at];
            for byte in (0..=u8::MAX).filter(|byte| *byte != was) {
                body[at] = byte;
                let sealed = kind.seal(&key, &body);
                match kind.reencode(&key, &sealed) {
                    Ok(again) => assert_eq!(again, sealed, "{name}, byte {at} as {byte}"),
                    Err(error) => {
                        assert!(matches!(error, CodecError::Malformed { .. }), "{name}, byte {at} as {byte}: {error}");
                    }
                }
            }
            body[at] = was;
        }
    }
}

#[test]
fn a_record_that_was_moved_under_another_key_is_an_error() {
    let fixtures = fixtures();
    for Golden { name, kind, key, record } in &fixtures {
        for Golden { name: other, key: other_key, .. } in &fixtures {
            if key != other_key {
                let error = kind.reencode(other_key, record).expect_err("another key");
                assert!(matches!(error, CodecError::Checksum { .. }), "{name} under the key of {other}: {error}");
            }
        }
    }
}

// === The page ===

/// The example of `docs/format.md` is the golden block: the hexadecimal digits before each bar, put together.
#[test]
fn the_example_of_the_format_page_is_the_golden_block() {
    let example = |title: &str| {
        let (_, after) = FORMAT_PAGE.split_once(&format!("```text {title}\n")).expect("the page has the example");
        let (lines, _) = after.split_once("```").unwrap();
        let digits = lines.lines().filter_map(|line| line.split('|').next());
        digits.flat_map(str::chars).filter(|digit| !digit.is_whitespace()).collect::<String>()
    };
    let golden = fixture("block", RecordKind::Block);
    assert_eq!(example("key"), to_hex(&golden.key));
    assert_eq!(example("record"), to_hex(&golden.record));
}
