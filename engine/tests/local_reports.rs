//! What a host's ledger tells people, and what a backup may put back into it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic fails the test")]

use std::ops::ControlFlow;
use std::path::Path;

use redb::{ReadableTable, TableDefinition};
use whereabouts_engine::{
    Address, Allocate, Attachment, BootId, Edges, Environment, Family, Holding, Holdings, HostEnvironment, HostFacts,
    ImportError, Imported, IpNet, Ledger, Network, OpenOptions, Owner, Pool, Range, Release, Sharing, Space, View,
    ViewSpec, Want,
};

fn facts(boot: u8) -> HostFacts {
    HostFacts {
        node: "here".into(),
        machine: "machine".into(),
        boot: BootId::from_bytes([boot; 16]),
        pid_namespace: 1,
        may_end_boots: true,
    }
}

fn open(folder: &Path, boot: u8) -> Ledger {
    Ledger::open(&OpenOptions::new(folder.join("ledger.redb")), facts(boot)).unwrap()
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn view(range: &str, edges: Edges) -> View {
    View::new(&ViewSpec { edges, ..range.parse().unwrap() }).unwrap()
}

fn want(range: &str, sharing: Sharing) -> Want {
    let spec: ViewSpec = range.parse().unwrap();
    Want {
        pool: Pool::new(Network::unnamed(), spec.cidr),
        sharing,
        view: View::new(&spec).unwrap().into(),
        exactly: None,
    }
}

/// Takes an address for a name, or for a container, which dies with the boot.
fn take(ledger: &Ledger, owner: &str, want: Want) -> Address {
    let (attachment, owner) = match owner.strip_prefix("container ") {
        Some(id) => (Attachment::new(id, "eth0", "net"), Owner::Container),
        None => (Attachment::named(owner), Owner::Named(owner.into())),
    };
    let answers = ledger.allocate(&[Allocate { attachment, owner, wants: vec![want] }]).unwrap();
    answers[0].as_ref().unwrap()[0].address
}

fn holdings(ledger: &Ledger, range: Option<&str>) -> Vec<Holding> {
    let range = range.map(|range| Range::from(range.parse::<IpNet>().unwrap()));
    let mut found = Vec::new();
    let visit = |holding| {
        found.push(holding);
        ControlFlow::Continue(())
    };
    ledger.each_holding(&Holdings { network: None, range }, visit).unwrap();
    found
}

// === occupancy ===

#[test]
fn cells_are_aligned_and_count_what_is_held() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), 1);
    for number in 0..70 {
        take(&ledger, &format!("n{number}"), want("10.0.0.0/24", Sharing::Shared));
    }
    ledger.release(&[Release::Address { space: space(), address: address("10.0.0.9"), operation: None }]).unwrap();
    let range = Range::from("10.0.0.0/24".parse::<IpNet>().unwrap());
    let occupancy = ledger.occupancy(&space(), &view("10.0.0.0/24", Edges::Reserved), range, 4).unwrap();
    assert_eq!((occupancy.assignable, occupancy.held, occupancy.strays, occupancy.cell_bits), (254, 69, 0, 6));
    let cells: Vec<_> = occupancy.cells.iter().map(|cell| (cell.assignable, cell.held)).collect();
    assert_eq!(cells, [(63, 62), (64, 7), (64, 0), (63, 0)]);
    assert_eq!(occupancy.cells[1].first, address("10.0.0.64"));
    assert_eq!(occupancy.lowest_free, Some(address("10.0.0.9")));

    // Half of what is held is not for those who ask for a part.
    let narrow = view("10.0.0.40-10.0.0.60/24", Edges::Reserved);
    let part = Range::new(address("10.0.0.30"), address("10.0.0.63")).unwrap();
    let occupancy = ledger.occupancy(&space(), &narrow, part, 1000).unwrap();
    assert_eq!((occupancy.assignable, occupancy.held, occupancy.strays), (21, 21, 13));
    assert_eq!((occupancy.lowest_free, occupancy.cells.len()), (None, 34));
}

#[test]
fn all_of_ipv6_has_cells_that_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), 1);
    let everything = Range::from("::/0".parse::<IpNet>().unwrap());
    let space = Space::shared(Network::unnamed(), Family::V6);
    for (edges, n_cells, bits) in [(Edges::Usable, 1, 127), (Edges::Usable, 3, 127), (Edges::Reserved, 1024, 118)] {
        let occupancy = ledger.occupancy(&space, &view("::/0", edges), everything, n_cells).unwrap();
        assert_eq!(occupancy.cell_bits, bits);
        assert_eq!(occupancy.cells.len(), 1 << (128 - bits));
        let sum = occupancy.cells.iter().fold(0_u128, |sum, cell| sum.saturating_add(cell.assignable));
        let expected = if edges == Edges::Usable { u128::MAX } else { u128::MAX - 1 };
        assert_eq!((sum, occupancy.assignable), (expected, expected));
    }
    take(&ledger, "last", Want { exactly: Some(address("ffff::1")), ..want("::/0", Sharing::Shared) });
    let occupancy = ledger.occupancy(&space, &view("::/0", Edges::Reserved), everything, 16).unwrap();
    assert_eq!(occupancy.cells.iter().map(|cell| cell.held).collect::<Vec<_>>()[14..], [0, 1]);
    assert_eq!(occupancy.lowest_free, Some(address("::1")));
}

#[test]
fn a_visitor_that_breaks_sees_no_more_and_families_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), 1);
    for range in ["10.0.0.0/24", "10.0.0.0/24", "fd00::/64"] {
        take(&ledger, range, want(range, Sharing::Shared));
        take(&ledger, &format!("{range} again"), want(range, Sharing::Shared));
    }
    let mut n_seen = 0;
    let visit = |_| {
        n_seen += 1;
        if n_seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    ledger.each_holding(&Holdings::default(), visit).unwrap();
    assert_eq!(n_seen, 3);
    assert_eq!(holdings(&ledger, Some("10.0.0.0/24")).len(), 2);
    assert_eq!(holdings(&ledger, Some("fd00::/64")).len(), 2);
    assert_eq!(holdings(&ledger, Some("::/0")).len(), 2);
}

// === history ===

#[test]
fn a_lease_that_died_with_its_boot_is_in_the_history_before_its_block_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let first = take(&open(folder.path(), 1), "container c", want("10.0.0.0/24", Sharing::Shared));
    let ledger = open(folder.path(), 2);
    take(&ledger, "elsewhere", want("10.9.0.0/24", Sharing::Shared));
    assert_eq!(ledger.who(first).unwrap(), []);
    let past = ledger.history(first).unwrap();
    assert_eq!(past.len(), 1);
    assert!(past[0].lease.since <= past[0].until);
    take(&ledger, "next", want("10.0.0.0/24", Sharing::Shared));
    assert_eq!(ledger.history(first).unwrap().len(), 1, "it is told once");
}

/// A new sandbox of a pod has the address from then on, and the one before it had it until then.
#[test]
fn a_sandbox_that_takes_over_ends_the_time_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), 1);
    let add = |container: &str| {
        let request = Allocate {
            attachment: Attachment::new(container, "eth0", "net"),
            owner: Owner::Sticky { name: "db-0".into(), pod: None },
            wants: vec![want("10.0.0.0/24", Sharing::Shared)],
        };
        ledger.allocate(&[request]).unwrap()[0].as_ref().unwrap()[0].address
    };
    let first = add("first");
    let since = ledger.who(first).unwrap()[0].lease.since;
    assert_eq!(add("first"), first);
    assert_eq!(ledger.who(first).unwrap()[0].lease.since, since, "the same sandbox has it since it got it");
    assert_eq!(ledger.history(first).unwrap(), []);

    // The clock has to show another millisecond.
    while HostEnvironment.now() <= since {
        std::hint::spin_loop();
    }
    assert_eq!(add("second"), first);
    let now = ledger.who(first).unwrap()[0].lease.clone();
    let past = ledger.history(first).unwrap();
    assert_eq!(past.len(), 1);
    assert_eq!((&*past[0].lease.attachment.container, &*now.attachment.container), ("first", "second"));
    assert_eq!((past[0].lease.since, past[0].until), (since, now.since), "one ends when the other begins");
    assert!(now.since > since);
}

// === damage ===

/// Changes the last byte of the rows of a table that `is_meant`, as a disk would.
fn damage(folder: &Path, table: &str, mut is_meant: impl FnMut(usize) -> bool) {
    let database = redb::Database::open(folder.join("ledger.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let definition: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(table);
        let mut rows = transaction.open_table(definition).unwrap();
        let all: Vec<_> = rows
            .iter()
            .unwrap()
            .map(|row| row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).unwrap())
            .collect();
        for (_, (key, mut value)) in all.into_iter().enumerate().filter(|(at, _)| is_meant(*at)) {
            *value.last_mut().unwrap() ^= 1;
            rows.insert(key.as_slice(), value.as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
}

#[test]
fn what_can_be_read_is_told_beside_what_cannot() {
    let folder = tempfile::tempdir().unwrap();
    for range in ["10.0.0.0/24", "10.1.0.0/24", "10.2.0.0/24"] {
        take(&open(folder.path(), 1), range, want(range, Sharing::Shared));
    }
    damage(folder.path(), "blocks", |at| at == 1);
    let ledger = open(folder.path(), 1);
    let readable = |range: Option<&str>| {
        let range = range.map(|range| Range::from(range.parse::<IpNet>().unwrap()));
        let mut found = Vec::new();
        let damage = ledger.each_readable_holding(&Holdings { network: None, range }, |holding| {
            found.push(holding.address.to_string());
        });
        (found, damage.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (found, damage) = readable(None);
    assert_eq!(found, ["10.0.0.1", "10.2.0.1"]);
    assert!(damage.len() == 1 && damage[0].contains("table blocks is damaged"), "{damage:?}");
    assert_eq!(readable(Some("10.2.0.0/24")), (vec!["10.2.0.1".to_owned()], vec![]), "it lies elsewhere");
    let mut n_seen = 0;
    let visit = |_| {
        n_seen += 1;
        ControlFlow::Continue(())
    };
    assert!(ledger.each_holding(&Holdings::default(), visit).is_err());
    assert_eq!(n_seen, 1);
}

#[test]
fn an_error_says_once_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let web = || Allocate {
        attachment: Attachment::named("web"),
        owner: Owner::Named("web".into()),
        wants: vec![want("10.0.0.0/24", Sharing::Shared)],
    };
    open(folder.path(), 1).allocate(&[web()]).unwrap();
    damage(folder.path(), "blocks", |_| true);
    let ledger = open(folder.path(), 1);
    let release = Release::Attachment { container: "web".into(), interface: "".into(), network: Some("".into()) };
    let said = [
        ledger.release(&[release]).map(|mut answers| answers.pop().unwrap().unwrap_err().to_string()).unwrap(),
        ledger.allocate(&[web()]).map(|mut answers| answers.pop().unwrap().unwrap_err().to_string()).unwrap(),
    ];
    for said in said {
        assert_eq!(said.matches("whereabouts verify").count(), 1, "{said}");
        assert_eq!(said.matches("restore an export").count(), 1, "{said}");
    }
}

// === import ===

fn space() -> Space {
    Space::shared(Network::unnamed(), Family::V4)
}

#[test]
fn a_backup_comes_back_whole_and_only_once() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = open(old.path(), 1);
    for number in 0..300 {
        take(&ledger, &format!("n{number}"), want("10.0.0.0/22", Sharing::Shared));
    }
    take(&ledger, "container c", want("10.0.0.0/22", Sharing::Shared));
    take(&ledger, "private", want("10.9.0.0/24", Sharing::Private));
    let backup = holdings(&ledger, None);
    assert_eq!(backup.len(), 302);

    let mut restored = open(new.path(), 1);
    let promised = restored.would_import(&backup).unwrap();
    assert_eq!(holdings(&restored, None), []);
    let imported = restored.import(&backup).unwrap();
    assert_eq!(imported, promised);
    assert_eq!(imported, Imported { n_added: 302, n_present: 0, n_over: 0 });
    assert_eq!(holdings(&restored, None), backup);
    assert_eq!(restored.import(&backup).unwrap(), Imported { n_added: 0, n_present: 302, n_over: 0 });
    let verified = restored.verify().unwrap();
    assert_eq!((verified.disagreements, verified.n_held, verified.pages_checked), (vec![], 302, false));
    // Owners find what is theirs, and the next one gets what is free.
    assert_eq!(take(&restored, "n7", want("10.0.0.0/22", Sharing::Shared)), address("10.0.0.8"));
    assert_eq!(take(&restored, "new", want("10.0.0.0/22", Sharing::Shared)), address("10.0.1.47"));
}

#[test]
fn what_died_with_another_boot_is_not_brought_back() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = open(old.path(), 1);
    take(&ledger, "container c", want("10.0.0.0/24", Sharing::Shared));
    take(&ledger, "name", want("10.0.0.0/24", Sharing::Shared));
    let backup = holdings(&ledger, None);
    let restored = open(new.path(), 2);
    assert_eq!(restored.import(&backup).unwrap(), Imported { n_added: 1, n_present: 0, n_over: 1 });
    assert_eq!(holdings(&restored, None).len(), 1);
}

#[test]
fn a_second_holder_is_refused_and_nothing_is_changed() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = open(old.path(), 1);
    for name in ["web", "db"] {
        take(&ledger, name, want("10.0.0.0/24", Sharing::Shared));
    }
    let backup = holdings(&ledger, None);
    let restored = open(new.path(), 1);
    take(&restored, "other", want("10.0.0.0/24", Sharing::Shared));
    let before = holdings(&restored, None);
    let Err(ImportError::Conflicts(conflicts)) = restored.import(&backup) else { unreachable!("it is a conflict") };
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].address, address("10.0.0.1"));
    assert_eq!(
        (conflicts[0].imported.to_string().as_str(), conflicts[0].held_by.to_string().as_str()),
        ("web", "other")
    );
    assert_eq!(holdings(&restored, None), before);
    assert!(matches!(restored.would_import(&backup), Err(ImportError::Conflicts(told)) if told == conflicts));

    // A backup that gives one address to two is in conflict with itself.
    let mut twice = vec![backup[0].clone(), backup[0].clone()];
    twice[1].lease.owner = Owner::Named("thief".into());
    twice[1].lease.attachment = Attachment::named("thief");
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(open(empty.path(), 1).import(&twice), Err(ImportError::Conflicts(_))));
}

#[test]
fn a_pool_is_not_made_private_and_shared_at_once_by_a_backup() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = open(old.path(), 1);
    take(&ledger, "web", want("10.0.0.0/24", Sharing::Private));
    let backup = holdings(&ledger, None);
    let restored = open(new.path(), 1);
    take(&restored, "other", want("10.0.0.0/24", Sharing::Shared));
    let refused = restored.import(&backup);
    assert!(matches!(refused, Err(ImportError::Sharing { held_as: Sharing::Shared, .. })), "{refused:?}");
    assert_eq!(holdings(&restored, None).len(), 1);
}

#[test]
fn a_lease_outside_of_its_pool_is_not_imported() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = open(old.path(), 1);
    take(&ledger, "shared", want("10.0.0.0/24", Sharing::Shared));
    take(&ledger, "private", want("10.9.0.0/24", Sharing::Private));
    let [shared, private] = <[Holding; 2]>::try_from(holdings(&ledger, None)).unwrap();
    let refused = |holding: &Holding, at: &str, pool: &str| {
        let mut strange = holding.clone();
        (strange.address, strange.lease.pool) = (address(at), pool.parse().unwrap());
        let refused = open(new.path(), 1).import(&[strange]);
        assert!(matches!(refused, Err(ImportError::NotInPool { .. })), "{at} of {pool}: {refused:?}");
    };
    refused(&shared, "10.0.1.0", "10.0.0.0/24");
    refused(&shared, "10.0.0.1", "10.0.0.1/24");
    refused(&private, "10.9.1.0", "10.9.0.0/24");
    refused(&private, "10.9.0.1", "10.9.0.0/25");
}

#[test]
fn a_lease_outside_of_its_pool_is_a_disagreement() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path(), 1);
    let elsewhere = Pool::new(Network::unnamed(), "10.5.0.0/24".parse().unwrap());
    take(&ledger, "web", Want { pool: elsewhere, ..want("10.0.0.0/24", Sharing::Shared) });
    let disagreements = ledger.verify().unwrap().disagreements;
    let said = disagreements.iter().map(ToString::to_string).collect::<String>();
    assert_eq!(disagreements.len(), 1, "{said}");
    for part in ["10.0.0.1", "web", "10.5.0.0/24", "`whereabouts release 10.0.0.1`"] {
        assert!(said.contains(part), "{said}");
    }
}
