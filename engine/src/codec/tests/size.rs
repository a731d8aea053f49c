//! What a lease costs in bytes: the design wants about 100, of which 56 are ids that nothing can shorten.

use super::super::Record;
use crate::testing::full_block_of_pods;

#[test]
fn a_lease_costs_about_a_hundred_bytes() {
    for (n_nodes, limit) in [(1, 101), (40, 108)] {
        let record = full_block_of_pods(n_nodes).encode(b"key").unwrap();
        let bytes = record.len() / 256;
        assert!(bytes <= limit, "{bytes} bytes per lease on {n_nodes} nodes");
    }
}
