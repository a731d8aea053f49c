//! Views against a model that looks at every address of a small network.
#![no_main]

use std::collections::BTreeSet;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use whereabouts_engine::{Address, BlockNumber, Edges, Family, IpNet, Offset, Range, View, ViewSpec};

#[derive(Arbitrary, Debug)]
struct Input {
    v6: bool,
    base: u128,
    /// How many bits the network has, at most 10.
    bits: u8,
    start: Option<u16>,
    end: Option<u16>,
    excludes: Vec<(u16, u8)>,
    gateway: Option<u16>,
    usable: bool,
}

fuzz_target!(|input: Input| {
    let family = if input.v6 { Family::V6 } else { Family::V4 };
    let bits = input.bits % 11;
    let mask = (1_u128 << bits) - 1;
    let base = (input.base & family.last()) & !mask;
    let at = |offset: u16| Address::new(family, base.wrapping_add(u128::from(offset)) & family.last());
    let Some(first) = Address::new(family, base) else { return };
    let Ok(cidr) = IpNet::new(first.to_ip(), family.bits() - bits) else { return };
    let mut spec = ViewSpec::new(cidr);
    spec.start = input.start.and_then(at);
    spec.end = input.end.and_then(at);
    spec.gateways = input.gateway.and_then(at).into_iter().collect();
    spec.edges = if input.usable { Edges::Usable } else { Edges::Reserved };
    for (offset, bits) in input.excludes.iter().take(40) {
        let Some(address) = at(*offset) else { continue };
        if let Ok(exclude) = IpNet::new(address.to_ip(), family.bits() - bits % 11) {
            spec.excludes.push(exclude.trunc());
        }
    }
    let Ok(view) = View::new(&spec) else { return };

    let last = base | mask;
    let reserved = !input.usable;
    let (lowest, highest) = if reserved { (base + 1, last - 1) } else { (base, last) };
    let start = spec.start.map(Address::number).filter(|start| (lowest..=highest).contains(start)).unwrap_or(lowest);
    let end = spec.end.map(Address::number).filter(|end| (start..=highest).contains(end)).unwrap_or(highest);
    let assignable = |number: &u128| {
        let Some(address) = Address::new(family, *number) else { return false };
        (start..=end).contains(number)
            && !spec.excludes.iter().any(|exclude| Range::from(*exclude).contains(address))
            && !spec.gateways.contains(&address)
            && !(reserved && family == Family::V4 && number & 255 == 0)
    };
    let model: BTreeSet<u128> = (base..=last).filter(assignable).collect();

    let found: Vec<u128> = view.iter().map(Address::number).collect();
    assert_eq!(found, model.iter().copied().collect::<Vec<_>>());
    assert_eq!(view.count(), u128::try_from(model.len()).unwrap());
    assert_eq!(view.first().map(Address::number), model.first().copied());
    assert_eq!(view.last().map(Address::number), model.last().copied());
    for (rank, number) in model.iter().enumerate() {
        assert_eq!(view.nth(u128::try_from(rank).unwrap()).map(Address::number), Some(*number));
    }
    for number in base..=last {
        let address = Address::new(family, number).unwrap();
        assert_eq!(view.contains(address), model.contains(&number));
        let offsets = view.offsets(BlockNumber::of(address));
        assert_eq!(offsets.contains(u32::from(Offset::of(address))), model.contains(&number));
    }
    let blocks: BTreeSet<u128> = model.iter().map(|number| number >> 8).collect();
    let spans: BTreeSet<u128> = view.block_spans().flat_map(|span| span.iter()).map(BlockNumber::get).collect();
    assert_eq!(spans, blocks);
});
