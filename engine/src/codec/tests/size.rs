//! What a lease costs in bytes: the design wants about 100, of which 56 are ids that nothing can shorten.

use roaring::RoaringBitmap;

use super::super::Record;
use crate::block::Block;
use crate::lease::{Attachment, BootId, Lease, LeaseState, OperationId, Owner, Pod};

/// Digits that no compression could shorten.
fn digits(seed: u64, n: usize) -> String {
    let mut state = seed;
    let mut digits = String::new();
    while digits.len() < n {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        digits += &format!("{:016x}", mixed ^ (mixed >> 31));
    }
    digits.truncate(n);
    digits
}

/// A full block of pods as a cluster has them, on so many nodes.
fn pods(n_nodes: u64) -> Block {
    let lease = |at: u64| {
        let id = digits(at, 32);
        let uid = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
        let node = at % n_nodes;
        Lease {
            state: LeaseState::Active,
            operation: OperationId::from_bytes(digits(at + 1000, 8).as_bytes().try_into().unwrap()),
            attachment: Attachment::new(&digits(at + 2000, 64), "eth0", "macvlan-conf"),
            owner: Owner::Pod(Pod {
                namespace: ["production", "staging", "kube-system"][usize::try_from(at % 3).unwrap()].into(),
                name: format!("checkout-{}-{}", digits(at % 7, 10), digits(at, 5)).into(),
                uid: Some(uid.into()),
            }),
            node: format!("worker-{node:02}.rack-3.example.net").into(),
            boot: Some(BootId::from_bytes(u128::from(node).to_be_bytes())),
            pool: "10.0.0.0/16".parse().unwrap(),
            provider: None,
            since: 1_767_225_600_000 + at * 7919,
        }
    };
    Block::from_parts(256, 0, false, RoaringBitmap::from_iter(0..256), (0..256).map(lease).collect(), Vec::new())
        .unwrap()
}

#[test]
fn a_lease_costs_about_a_hundred_bytes() {
    for (n_nodes, limit) in [(1, 101), (40, 108)] {
        let record = pods(n_nodes).encode(b"key").unwrap();
        let bytes = record.len() / 256;
        assert!(bytes <= limit, "{bytes} bytes per lease on {n_nodes} nodes");
    }
}
