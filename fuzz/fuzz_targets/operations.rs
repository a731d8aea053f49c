//! Calls on the ledger of one host against a map from addresses to holders.
#![no_main]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use whereabouts_engine::backend::MemoryStorage;
use whereabouts_engine::{
    Address, Allocate, AllocateError, Attachment, BootId, Collect, Holdings, HostFacts, Ledger, LedgerFile, Network,
    OpenOptions, Owner, Pool, Release, Sharing, View, ViewSpec, Want,
};

#[derive(Arbitrary, Debug)]
enum Call {
    Add { batch: Vec<(u8, u8)> },
    Delete { container: u8 },
    Collect { listed: u16 },
    Reopen,
}

const RANGES: [&str; 3] = ["10.0.0.0/28", "10.0.0.0/29", "10.0.0.248/28"];

fn want(range: u8) -> Want {
    let cidr = RANGES[usize::from(range) % RANGES.len()].parse().unwrap();
    let spec = ViewSpec::new(cidr);
    Want {
        pool: Pool::new(Network::unnamed(), cidr),
        sharing: Sharing::Shared,
        view: View::new(&spec).unwrap().into(),
        exactly: None,
    }
}

fn attachment(container: u8) -> Attachment {
    Attachment::new(&format!("c{}", container % 16), "eth0", "net")
}

fn open(storage: &Arc<MemoryStorage>) -> Ledger {
    let file = LedgerFile::open_storage(storage.clone(), &OpenOptions::new("/ledger.redb")).unwrap();
    let facts = HostFacts {
        node: "host".into(),
        machine: "machine".into(),
        boot: BootId::from_bytes([1; 16]),
        pid_namespace: 1,
        may_end_boots: true,
    };
    Ledger::on(file, facts)
}

fuzz_target!(|calls: Vec<Call>| {
    let storage = Arc::new(MemoryStorage::new());
    let mut ledger = open(&storage);
    // Who holds an address, and from which pool it came.
    let mut model: BTreeMap<Address, (Attachment, u8)> = BTreeMap::new();
    for call in calls.into_iter().take(40) {
        match call {
            Call::Add { batch } => {
                let mut seen = Vec::new();
                let batch: Vec<(u8, u8)> = batch
                    .into_iter()
                    .map(|(container, range)| (container % 16, range % 3))
                    .filter(|(container, _)| !seen.contains(container) && { seen.push(*container); true })
                    .take(8)
                    .collect();
                let requests: Vec<Allocate> = batch
                    .iter()
                    .map(|(container, range)| Allocate {
                        attachment: attachment(*container),
                        owner: Owner::Container,
                        wants: vec![want(*range)],
                    })
                    .collect();
                let answers = ledger.allocate(&requests).unwrap();
                for ((container, range), answer) in batch.into_iter().zip(answers) {
                    let (who, view) = (attachment(container), want(range).view);
                    let mine = |by_pool: bool| {
                        model.iter().find(|(address, (held_by, pool))| {
                            *held_by == who && if by_pool { *pool == range } else { view.contains(**address) }
                        })
                    };
                    let free = || view.iter().find(|address| !model.contains_key(address));
                    let expected = mine(true).or_else(|| mine(false)).map(|(address, _)| *address).or_else(free);
                    match (answer, expected) {
                        (Ok(given), Some(expected)) => {
                            assert_eq!(given[0].address, expected);
                            model.insert(expected, (who, range));
                        }
                        (Err(AllocateError::RangeFull { .. }), None) => {}
                        (answer, expected) => panic!("{answer:?} where the model has {expected:?}"),
                    }
                }
            }
            Call::Delete { container } => {
                let gone = attachment(container);
                let release = Release::Attachment {
                    container: gone.container.clone(),
                    interface: gone.interface.clone(),
                    network: Some(gone.network.clone()),
                };
                ledger.release(&[release]).unwrap().remove(0).unwrap();
                model.retain(|_, (held_by, _)| *held_by != gone);
            }
            Call::Collect { listed } => {
                let valid = (0..16).filter(|bit| listed & (1 << bit) != 0).map(attachment);
                let valid = valid.map(|attachment| (attachment.container, attachment.interface)).collect();
                let list = Collect { network: "net".into(), valid, grace: 0 };
                ledger.collect(&list).unwrap();
                model.retain(|_, (held_by, _)| list.valid.contains(&(held_by.container.clone(), held_by.interface.clone())));
            }
            Call::Reopen => {
                drop(ledger);
                ledger = open(&storage);
            }
        }
        let mut held = BTreeMap::new();
        ledger
            .each_holding(&Holdings::default(), |holding| {
                held.insert(holding.address, holding.lease.attachment);
                ControlFlow::Continue(())
            })
            .unwrap();
        let expected: BTreeMap<Address, Attachment> =
            model.iter().map(|(address, (held_by, _))| (*address, held_by.clone())).collect();
        assert_eq!(held, expected);
        assert_eq!(ledger.verify().unwrap().disagreements, []);
    }
});
