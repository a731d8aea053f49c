//! Values of every kind in every shape that their records know: each text, container of a bitmap, owner, family.

use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use roaring::RoaringBitmap;

use crate::address::Family;
use crate::block::Block;
use crate::codec::{OwnerAddress, OwnerRow};
use crate::index::{BlockSet, Index};
use crate::intent::{AttachmentRow, Claim, HeldAddress, Intent, Past, Purpose, Seen};
use crate::lease::{Attachment, BootId, Lease, LeaseState, OperationId, Owner, Pod};
use crate::ledger::keys;
use crate::ledger::meta::{FullRow, HostRow, IdentityRow, SharingRow, StoreRow};
use crate::offset::{BlockNumber, Offset};
use crate::space::{BlockId, Network, Pool, Sharing, Space};
use crate::store::Version;

/// Lower-case digits of either parity, around the length from which they are packed; upper-case and mixed ones; UUIDs,
/// right and nearly right; nothing; and anything else.
pub(super) fn any_text() -> BoxedStrategy<String> {
    prop_oneof![
        3 => "[0-9a-f]{64}",
        2 => "[0-9a-f]{0,40}",
        1 => "[0-9A-F]{14,18}",
        1 => "[0-9a-g]{16,17}",
        2 => "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        1 => "[0-9A-Fa-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        1 => "[0-9a-f-]{36}",
        1 => Just(String::new()),
        1 => any::<String>(),
    ]
    .boxed()
}

fn any_shared_text() -> BoxedStrategy<Arc<str>> {
    any_text().prop_map(Arc::from).boxed()
}

fn any_name() -> BoxedStrategy<Arc<str>> {
    prop_oneof![4 => "[a-z0-9-]{1,12}", 1 => Just(String::new()), 1 => any_text()].prop_map(Arc::from).boxed()
}

pub(super) fn any_network() -> BoxedStrategy<Network> {
    prop_oneof![Just(String::new()), "[a-z]{1,8}", "\\PC{1,20}", "x{200}"]
        .prop_map(|name| Network::new(&name).unwrap())
        .boxed()
}

pub(super) fn any_family() -> BoxedStrategy<Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)].boxed()
}

/// Without host bits: with them it is not a pool's CIDR.
pub(super) fn any_net() -> BoxedStrategy<IpNet> {
    let v4 = (any::<u32>(), 0_u8..=32).prop_map(|(bits, prefix)| Ipv4Net::new(bits.into(), prefix).unwrap().into());
    let v6 = (any::<u128>(), 0_u8..=128).prop_map(|(bits, prefix)| Ipv6Net::new(bits.into(), prefix).unwrap().into());
    prop_oneof![v4, v6].prop_map(|net: IpNet| net.trunc()).boxed()
}

pub(super) fn any_space() -> BoxedStrategy<Space> {
    let shared = (any_network(), any_family()).prop_map(|(network, family)| Space::shared(network, family));
    let private =
        (any_network(), any_net()).prop_map(|(network, cidr)| Pool::new(network, cidr).space(Sharing::Private));
    prop_oneof![shared, private].boxed()
}

/// Ends of the family and of the numbers that one bitmap holds more often than chance would have them.
pub(super) fn any_number(family: Family) -> BoxedStrategy<BlockNumber> {
    let last = BlockNumber::last(family).get();
    let near = |edge: u128| (0_u128..6).prop_map(move |more| edge.saturating_sub(3).saturating_add(more));
    prop_oneof![near(0), near(1 << 16), near(1 << 32), near(last), any::<u128>(),]
        .prop_map(move |number| BlockNumber::new(family, number.min(last)).unwrap())
        .boxed()
}

pub(super) fn any_block_id() -> BoxedStrategy<BlockId> {
    any_space()
        .prop_flat_map(|space| {
            any_number(space.family()).prop_map(move |number| BlockId { space: space.clone(), number })
        })
        .boxed()
}

fn any_offset() -> BoxedStrategy<Offset> {
    any::<u8>().prop_map(Offset::from).boxed()
}

fn any_operation() -> BoxedStrategy<OperationId> {
    any::<[u8; 8]>().prop_map(OperationId::from_bytes).boxed()
}

fn any_boot() -> BoxedStrategy<BootId> {
    any::<[u8; 16]>().prop_map(BootId::from_bytes).boxed()
}

pub(super) fn any_attachment() -> BoxedStrategy<Attachment> {
    (any_shared_text(), any_name(), any_name())
        .prop_map(|(container, interface, network)| Attachment { container, interface, network })
        .boxed()
}

fn any_pod() -> BoxedStrategy<Pod> {
    (any_name(), any_shared_text(), option::of(any_shared_text()))
        .prop_map(|(namespace, name, uid)| Pod { namespace, name, uid })
        .boxed()
}

pub(super) fn any_owner() -> BoxedStrategy<Owner> {
    prop_oneof![
        Just(Owner::Container),
        any_pod().prop_map(Owner::Pod),
        (any_shared_text(), option::of(any_pod())).prop_map(|(name, pod)| Owner::Sticky { name, pod }),
        any_shared_text().prop_map(Owner::Named),
    ]
    .boxed()
}

fn any_state() -> BoxedStrategy<LeaseState> {
    prop_oneof![
        Just(LeaseState::Active),
        Just(LeaseState::Pending),
        Just(LeaseState::Releasing),
        Just(LeaseState::Quarantined),
    ]
    .boxed()
}

/// Of today, and the ends of what a number of milliseconds can be.
fn any_time() -> BoxedStrategy<u64> {
    prop_oneof![4 => 1_700_000_000_000_u64..1_900_000_000_000, 1 => any::<u64>(), 1 => Just(0), 1 => Just(u64::MAX)]
        .boxed()
}

pub(super) fn any_lease() -> BoxedStrategy<Lease> {
    (
        (any_state(), any_operation(), any_attachment(), any_owner(), any_name()),
        (option::of(any_boot()), any_net(), option::of(any_name()), any_time()),
    )
        .prop_map(|((state, operation, attachment, owner, node), (boot, pool, provider, since))| Lease {
            state,
            operation,
            attachment,
            owner,
            node,
            boot,
            pool,
            provider,
            since,
        })
        .boxed()
}

/// Sets of offsets as arrays, as bitmaps with runs, and at their ends.
pub(super) fn any_offsets() -> BoxedStrategy<RoaringBitmap> {
    let scattered = btree_set(0_u32..256, 0..40).prop_map(RoaringBitmap::from_iter);
    let run = (0_u32..256, 0_u32..256).prop_map(|(first, last)| {
        let mut run = RoaringBitmap::new();
        run.insert_range(first..=last);
        run
    });
    let optimised = (0_u32..4, 0_u32..256).prop_map(|(first, n)| {
        let mut most = RoaringBitmap::from_iter((first..256).take(256));
        most.remove(n);
        most.optimize();
        most
    });
    prop_oneof![
        3 => scattered,
        2 => run,
        1 => optimised,
        1 => Just(RoaringBitmap::new()),
        1 => Just(RoaringBitmap::from_iter(0..256)),
    ]
    .boxed()
}

/// A few leases give the columns of all offsets, so that dictionaries are shared and met in any order.
pub(super) fn any_block() -> BoxedStrategy<Block> {
    let head = (any::<u64>(), any::<u64>(), any::<bool>());
    let covered = vec((any::<prop::sample::Index>(), any_lease()), 0..3);
    (head, any_offsets(), vec(any_lease(), 1..5), vec(any::<prop::sample::Index>(), 256), any::<u64>(), covered)
        .prop_map(|((sequence, epoch, frozen), used, palette, picks, seed, covered)| {
            let leases = used
                .iter()
                .zip(picks)
                .map(|(offset, pick)| {
                    let mut lease = pick.get(&palette).clone();
                    lease.operation = OperationId::from_bytes((seed ^ u64::from(offset)).to_be_bytes());
                    lease
                })
                .collect();
            let mut covered: Vec<_> = covered
                .into_iter()
                .filter_map(|(pick, lease)| {
                    let nth = pick.index(usize::try_from(used.len()).unwrap().max(1));
                    let offset = used.select(u32::try_from(nth).unwrap())?;
                    Some((Offset::from(u8::try_from(offset).unwrap()), lease))
                })
                .collect();
            covered.sort_by_key(|(offset, _)| *offset);
            Block::from_parts(sequence, epoch, frozen, used, leases, covered).unwrap()
        })
        .boxed()
}

/// Block numbers within one bitmap: few, many every second, and long runs, across the borders of its containers.
fn any_lows() -> BoxedStrategy<RoaringBitmap> {
    let scattered = btree_set(any::<u32>(), 1..20).prop_map(RoaringBitmap::from_iter);
    let dense = (0_u32..3, 60_000_u32..70_000).prop_map(|(first, n)| (0..n).map(|at| first + at * 2).collect());
    let run = (0_u32..70_000, 1_u32..200_000).prop_map(|(first, n)| {
        let mut run = RoaringBitmap::new();
        run.insert_range(first..first + n);
        run
    });
    let end = (0_u32..70_000).prop_map(|n| {
        let mut end = RoaringBitmap::new();
        end.insert_range(u32::MAX - n..=u32::MAX);
        end.optimize();
        end
    });
    prop_oneof![8 => scattered, 1 => dense, 2 => run, 2 => end].boxed()
}

pub(super) fn any_block_set(family: Family) -> BoxedStrategy<BlockSet> {
    let highs = prop_oneof![Just(0_u128), 1_u128..3, Just((1 << 88) - 1), (0_u128..1 << 88)];
    vec((highs, any_lows()), 0..3)
        .prop_map(move |parts| {
            let mut set = BlockSet::default();
            for (high, mut lows) in parts {
                if family == Family::V4 {
                    lows.remove_range(1 << 24..);
                }
                let high = if family == Family::V4 { 0 } else { high };
                if !lows.is_empty() && set.bitmaps().all(|(other, _)| other != high) {
                    let parts: Vec<_> =
                        set.bitmaps().map(|(high, lows)| (high, lows.clone())).chain([(high, lows)]).collect();
                    set = BlockSet::from_bitmaps(parts).unwrap();
                }
            }
            set
        })
        .boxed()
}

/// An index, and the space whose it is.
pub(super) fn any_index() -> BoxedStrategy<(Space, Index)> {
    any_space()
        .prop_flat_map(|space| {
            let set = || any_block_set(space.family());
            let frozen = option::of(any::<String>());
            let reported = btree_set("[a-c]{0,2}".prop_map(Arc::from), 0..3);
            (Just(space.clone()), any::<u64>(), any::<u64>(), (frozen, reported), (set(), set(), set())).prop_map(
                |(space, sequence, epoch, (frozen, reported), (existing, full, full_but_zero))| {
                    (space, Index { sequence, epoch, frozen, reported, existing, full, full_but_zero })
                },
            )
        })
        .boxed()
}

fn any_held() -> BoxedStrategy<HeldAddress> {
    (any_block_id(), any_offset(), any_operation(), option::of(any_lease()))
        .prop_map(|(block, offset, operation, lease)| HeldAddress { block, offset, operation, lease })
        .boxed()
}

fn any_version() -> BoxedStrategy<Version> {
    vec(any::<u8>(), 0..20).prop_map(|bytes| Version::from_bytes(&bytes)).boxed()
}

fn any_claim() -> BoxedStrategy<Claim> {
    (any_block_id(), any_offset(), any_version(), option::of(any_lease()))
        .prop_map(|(block, offset, expected, previous)| Claim { block, offset, expected, previous })
        .boxed()
}

pub(super) fn any_attachment_row() -> BoxedStrategy<AttachmentRow> {
    (any_name(), any_boot(), any_time(), vec(any_held(), 0..3))
        .prop_map(|(store, boot, recorded, held)| AttachmentRow { store, boot, recorded, held })
        .boxed()
}

pub(super) fn any_owner_row() -> BoxedStrategy<OwnerRow> {
    let address = prop_oneof![any::<u128>(), 0_u128..300, Just(u128::MAX)];
    let known = (address, any_operation()).prop_map(|(address, operation)| OwnerAddress { address, operation });
    vec(known, 0..4).prop_map(|addresses| OwnerRow { addresses }).boxed()
}

pub(super) fn any_intent() -> BoxedStrategy<Intent> {
    let purpose = prop_oneof![
        vec(any_claim(), 0..3).prop_map(Purpose::Claim),
        vec(any_claim(), 0..3).prop_map(Purpose::Undo),
        vec(any_held(), 0..3).prop_map(Purpose::Release),
        vec(any_block_id(), 0..3).prop_map(Purpose::Recheck),
        (any_space(), any::<u64>(), any::<String>()).prop_map(|(space, epoch, reason)| Purpose::Freeze {
            space,
            epoch,
            reason
        }),
    ];
    (any_attachment(), any_name(), any_boot(), any_time(), purpose)
        .prop_map(|(attachment, store, boot, opened, purpose)| Intent { attachment, store, boot, opened, purpose })
        .boxed()
}

pub(super) fn any_seen() -> BoxedStrategy<Seen> {
    (any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..40))
        .prop_map(|(epoch, sequence, identity)| Seen { epoch, sequence, identity })
        .boxed()
}

/// A past lease, and the key under which it stands.
pub(super) fn any_past() -> BoxedStrategy<(Vec<u8>, Past)> {
    (any_block_id(), any_offset(), any_lease(), any_time())
        .prop_map(|(block, offset, lease, until)| {
            let past = Past { block, offset, lease, until };
            (keys::history(past.until, past.lease.operation, &past.block, past.offset.get()), past)
        })
        .boxed()
}

pub(super) fn any_identity() -> BoxedStrategy<IdentityRow> {
    (any_shared_text(), any::<[u8; 16]>(), any_time())
        .prop_map(|(machine, random, created)| IdentityRow { machine, random, created })
        .boxed()
}

pub(super) fn any_host() -> BoxedStrategy<HostRow> {
    (any_boot(), any::<u64>()).prop_map(|(boot, pid_namespace)| HostRow { boot, pid_namespace }).boxed()
}

pub(super) fn any_store() -> BoxedStrategy<StoreRow> {
    let text = || "\\PC{0,9}".prop_map(Arc::from);
    let row = |(identity, address, is_complete)| StoreRow { identity, address, is_complete };
    (text(), text(), any::<bool>()).prop_map(row).boxed()
}

pub(super) fn any_full() -> BoxedStrategy<FullRow> {
    (any::<u128>(), any_boot(), any_time()).prop_map(|(held, boot, found)| FullRow { held, boot, found }).boxed()
}

pub(super) fn any_sharing() -> BoxedStrategy<SharingRow> {
    prop_oneof![Just(SharingRow(Sharing::Shared)), Just(SharingRow(Sharing::Private))].boxed()
}
