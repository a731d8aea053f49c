//! What the Go plugin's objects are to say when it gives the addresses away again.
//!
//! The same leases and the same objects lead to the same plan, and objects that say what they should lead to one in which
//! nothing is to be done: so what was interrupted is gone on with, and what is written is read back.

use std::collections::{BTreeMap, BTreeSet};

use whereabouts_engine::{Address, IpNet, Lease, LeaseState, Network, Pool, Sharing, Space};

use super::super::client::Resource;
use super::super::go_plugin::{GoAllocation, GoPool, address_at, in_a_name};
use super::super::object_name;
use super::plan::{Fate, Finding, Left};

/// The highest offset that the Go plugin reads: it writes larger ones, and overlooks them afterwards.
const LAST_OFFSET: u128 = i64::MAX as u128;

/// How many bytes of allocations a pool may have. etcd takes objects of 1.5 MiB, and what else is in one needs room too.
const MOST_BYTES: usize = 1_300_000;

/// How many bytes an allocation has beside its texts.
const BYTES_BESIDE: usize = 40;

/// What is held, by the space.
pub(super) type Held = BTreeMap<Space, Vec<(Address, Lease)>>;

/// What is to be made of the Go plugin's objects.
#[derive(Clone, Debug, Default)]
pub struct WayBack {
    /// The pools of the networks that have spaces.
    pub pools: Vec<ReturnedPool>,
    /// The reservations that are not yet what they should be.
    pub reservations: Vec<ReturnedReservation>,
    /// The spaces, and how many addresses of each are held.
    pub spaces: Vec<(Space, usize)>,
    /// What a person should look at.
    pub findings: Vec<Finding>,
}

/// A pool of the Go plugin, as it is to be.
#[derive(Clone, Debug)]
pub struct ReturnedPool {
    /// The name of the object.
    pub name: String,
    /// Its space, which is private where its configuration says so.
    pub space: Space,
    /// Its range, as it was written.
    pub range: String,
    /// How many of its addresses will be held that are not.
    pub n_added: usize,
    /// How many will be held by others than now.
    pub n_changed: usize,
    /// How many are held and will not be.
    pub n_removed: usize,
    /// By the text of the offset.
    pub(super) allocations: BTreeMap<String, GoAllocation>,
    /// The version that was read; `None` for one that is to be made.
    pub(super) version: Option<String>,
}

/// A reservation that is to be written.
#[derive(Clone, Debug)]
pub struct ReturnedReservation {
    /// The name of the object.
    pub(super) name: String,
    /// The version that was read; `None` for one that is to be made.
    pub(super) version: Option<String>,
    /// For whom; `None` for one that is to be deleted.
    pub(super) holder: Option<GoAllocation>,
}

/// A pool while it is thought about.
struct Draft {
    name: String,
    version: Option<String>,
    range: IpNet,
    range_text: String,
    space: Space,
    /// Who holds what now.
    there: BTreeMap<Address, GoAllocation>,
    /// What leads to no address, and stays as it is.
    odd: BTreeMap<String, GoAllocation>,
    wanted: BTreeMap<Address, GoAllocation>,
}

/// Reservations by their names: for whom, and whether anybody's will do that is there.
type Reserved = BTreeMap<String, (GoAllocation, bool)>;

// === impl WayBack ===

impl WayBack {
    /// Whether there is something because of which nothing may be written.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.findings.iter().any(|finding| matches!(finding.fate, Fate::Unfit | Fate::Changed))
    }

    /// How many findings have this fate.
    #[must_use]
    pub fn count(&self, fate: Fate) -> usize {
        self.findings.iter().filter(|finding| finding.fate == fate).count()
    }

    /// How many reservations are to be made, to be given to others, and to be deleted.
    #[must_use]
    pub fn reservation_counts(&self) -> (usize, usize, usize) {
        let count = |is_it: fn(&ReturnedReservation) -> bool| self.reservations.iter().filter(|one| is_it(one)).count();
        (
            count(|one| one.version.is_none()),
            count(|one| one.version.is_some() && one.holder.is_some()),
            count(|one| one.holder.is_none()),
        )
    }

    /// Whether the Go plugin's objects say all that they should.
    pub(super) fn is_done(&self) -> bool {
        self.reservations.is_empty() && self.pools.iter().all(ReturnedPool::is_done)
    }
}

// === impl ReturnedPool ===

impl ReturnedPool {
    /// Whether it is to be made.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.version.is_none()
    }

    /// How many of its addresses will be held.
    #[must_use]
    pub fn n_allocations(&self) -> usize {
        self.allocations.len()
    }

    pub(super) fn is_done(&self) -> bool {
        !self.is_new() && self.n_added + self.n_changed + self.n_removed == 0
    }
}

// === impl Left ===

impl Left {
    /// What is to be made of all this, so that the Go plugin holds what is held here and nothing else. `make_pools` says
    /// whether pools may be made that are missing.
    pub(super) fn way_back(&self, held: &Held, make_pools: bool) -> WayBack {
        let mut plan = WayBack {
            spaces: held.iter().map(|(space, leases)| (space.clone(), leases.len())).collect(),
            ..WayBack::default()
        };
        let mut drafts: Vec<Draft> = self.pools.iter().filter_map(|pool| self.draft(pool, held)).collect();
        let mut reserved = Reserved::new();
        for (space, leases) in held {
            for (address, lease) in leases {
                let is_quarantined = lease.state == LeaseState::Quarantined;
                if is_quarantined {
                    let reason = "it stays held as the Go plugin's objects have it, and only by hand is it freed";
                    plan.findings.push(finding(space, *address, lease, reason.to_owned(), Fate::Quarantined));
                }
                let placed = match is_quarantined && self.stays(&mut drafts, space, *address) {
                    true => Ok(GoAllocation::of(lease)),
                    false => place(&mut drafts, space, *address, lease, make_pools),
                };
                let placed = placed.and_then(|holder| match space.sharing() {
                    Sharing::Shared => reserve(&mut reserved, space.network(), *address, holder, is_quarantined),
                    Sharing::Private => Ok(()),
                });
                if let Err(reason) = placed {
                    plan.findings.push(finding(space, *address, lease, reason, Fate::Unfit));
                }
            }
        }
        for draft in drafts {
            let pool = self.finish(draft, &mut plan.findings);
            plan.pools.push(pool);
        }
        self.compare_reservations(held, &reserved, &mut plan);
        plan
    }

    /// A pool whose addresses are in a space; `None` for one that is no business of ours.
    fn draft(&self, pool: &GoPool, held: &Held) -> Option<Draft> {
        let network = Network::new(&pool.network(&self.slices)?).ok()?;
        let range: IpNet = pool.range.parse().ok()?;
        let both = Pool::new(network, range);
        // Where its configuration was changed, one of both is empty.
        let spaces = [Sharing::Shared, Sharing::Private].map(|sharing| both.space(sharing));
        let there = spaces.into_iter().filter_map(|space| Some((held.get(&space)?.len(), space)));
        let (_, space) = there.max_by_key(|(n_held, _)| *n_held > 0)?;
        let (mut there, mut odd) = (BTreeMap::new(), BTreeMap::new());
        for (key, holder) in &pool.allocations {
            match address_at(range, key) {
                Some(address) => drop(there.insert(address, holder.clone())),
                None => drop(odd.insert(key.clone(), holder.clone())),
            }
        }
        let (name, version) = (pool.name.clone(), Some(pool.version.clone()));
        let (range_text, wanted) = (pool.range.clone(), BTreeMap::new());
        Some(Draft { name, version, range, range_text, space, there, odd, wanted })
    }

    /// Leaves an address as the Go plugin's objects have it; says whether any of them has it.
    fn stays(&self, drafts: &mut [Draft], space: &Space, address: Address) -> bool {
        let name = reservation_name(space.network(), address);
        let is_shared = space.sharing() == Sharing::Shared;
        let mut stays = is_shared && self.reservations.iter().any(|reservation| reservation.name == name);
        for draft in drafts.iter_mut().filter(|draft| draft.space == *space) {
            if let Some(holder) = draft.there.get(&address) {
                draft.wanted.insert(address, holder.clone());
                stays = true;
            }
        }
        stays
    }

    /// What a pool is to be, compared with what it is.
    fn finish(&self, draft: Draft, findings: &mut Vec<Finding>) -> ReturnedPool {
        let Draft { name, version, range_text, space, there, wanted, odd, .. } = &draft;
        let is_other = |(address, holder): &(&Address, &GoAllocation)| wanted.get(*address) != Some(*holder);
        let others: Vec<_> = there.iter().filter(is_other).collect();
        let n_changed = others.iter().filter(|(address, _)| wanted.contains_key(*address)).count();
        let object = object_name(Resource::GoPools, name);
        let network = space.network().as_str().to_owned();
        // What is there and was not imported may be alive, and nobody here knows of it.
        if !others.is_empty() && *version != self.before.pools.get(name).cloned() {
            findings.push(Finding {
                object: object.clone(),
                network: network.clone(),
                address: None,
                holders: others.iter().map(|(address, holder)| format!("{address}: {holder}")).collect(),
                reason:
                    "it was written since it was imported, and has what is not held here; run `whereabouts migrate`, \
                         which imports it, or take these entries away"
                        .to_owned(),
                fate: Fate::Changed,
            });
        }
        let mut allocations = odd.clone();
        for (address, holder) in wanted {
            allocations.extend(draft.key(*address).map(|key| (key, holder.clone())));
        }
        let texts = |(key, holder): (&String, &GoAllocation)| {
            BYTES_BESIDE + key.len() + holder.container.len() + holder.interface.len() + holder.pod.len()
        };
        if allocations.iter().map(texts).sum::<usize>() > MOST_BYTES {
            findings.push(Finding {
                object,
                network,
                address: None,
                holders: Vec::new(),
                reason: format!(
                    "it would hold {} addresses, and the object of a pool has no room for them; release some first",
                    allocations.len()
                ),
                fate: Fate::Unfit,
            });
        }
        ReturnedPool {
            name: name.clone(),
            space: space.clone(),
            range: range_text.clone(),
            n_added: wanted.keys().filter(|address| !there.contains_key(address)).count(),
            n_changed,
            n_removed: others.len() - n_changed,
            allocations,
            version: version.clone(),
        }
    }

    fn compare_reservations(&self, held: &Held, reserved: &Reserved, plan: &mut WayBack) {
        let mut there = BTreeSet::new();
        for reservation in &self.reservations {
            let (name, version) = (reservation.name.clone(), Some(reservation.version.clone()));
            there.insert(name.as_str().to_owned());
            let is_held = |(network, address): (&str, Address)| {
                Network::new(network).is_ok_and(|network| held.contains_key(&Space::shared(network, address.family())))
            };
            match reserved.get(&name) {
                Some((holder, is_any_right)) if !is_any_right && !reservation.holder.may_be(holder) => {
                    plan.reservations.push(ReturnedReservation { name, version, holder: Some(holder.clone()) });
                }
                Some(_) => {}
                None if !reservation.meanings().into_iter().any(is_held) => {}
                None if reservation.version.parse().is_ok_and(|version: u128| version <= self.before.reservations) => {
                    plan.reservations.push(ReturnedReservation { name, version, holder: None });
                }
                None => plan.findings.push(Finding {
                    object: object_name(Resource::GoReservations, &name),
                    network: String::new(),
                    address: None,
                    holders: vec![reservation.holder.to_string()],
                    reason:
                        "it was written since the reservations were imported, and is not held here; run `whereabouts \
                             migrate`, which imports it, or take it away"
                            .to_owned(),
                    fate: Fate::Changed,
                }),
            }
        }
        let missing = reserved.iter().filter(|(name, _)| !there.contains(*name));
        plan.reservations.extend(missing.map(|(name, (holder, _))| ReturnedReservation {
            name: name.clone(),
            version: None,
            holder: Some(holder.clone()),
        }));
    }
}

// === impl Draft ===

impl Draft {
    /// How the Go plugin names an address in the pool.
    fn key(&self, address: Address) -> Option<String> {
        let offset = address.number().checked_sub(Address::from(self.range.addr()).number())?;
        Some(offset.to_string())
    }

    /// How well an address suits the pool. The one that it was given for is the one in which the Go plugin looks for it;
    /// else it is the narrowest, and, of slices, that of its node.
    fn suits(&self, address: Address, lease: &Lease) -> (bool, u8, bool, bool) {
        let is_there = self.there.get(&address).is_some_and(|there| is_same(there, lease));
        let is_of_node = !lease.node.is_empty() && self.name.contains(&format!("{}-", lease.node));
        (self.range.trunc() == lease.pool, self.range.prefix_len(), is_of_node, is_there)
    }
}

/// Puts a lease into the pool that suits it best, and says how it is there; or why there is none.
fn place(
    drafts: &mut Vec<Draft>,
    space: &Space,
    address: Address,
    lease: &Lease,
    make_pools: bool,
) -> Result<GoAllocation, String> {
    let has_it = |draft: &&mut Draft| draft.space == *space && draft.range.contains(&address.to_ip());
    let best = drafts.iter_mut().filter(has_it).max_by_key(|draft| draft.suits(address, lease));
    let draft = match best {
        Some(draft) => draft,
        None => {
            let missing = missing_pool(space, address, lease)?;
            if !make_pools {
                let name = missing.name;
                return Err(format!("no pool of the Go plugin has it; --make-pools makes {name} as that plugin would"));
            }
            drafts.push(missing);
            drafts.last_mut().ok_or("no pool has it")?
        }
    };
    let offset = address.number().saturating_sub(Address::from(draft.range.addr()).number());
    if offset > LAST_OFFSET {
        let name = &draft.name;
        return Err(format!("it is so far up in pool {name} that the Go plugin would overlook it; {RELEASE}"));
    }
    let there = draft.there.get(&address).filter(|there| is_same(there, lease));
    let holder = there.cloned().unwrap_or_else(|| GoAllocation::of(lease));
    draft.wanted.insert(address, holder.clone());
    Ok(holder)
}

/// What to do about an address that the Go plugin cannot hold.
const RELEASE: &str = "delete its pod first, so that it is released";

/// The pool that the Go plugin would make for the range that a lease was given for.
fn missing_pool(space: &Space, address: Address, lease: &Lease) -> Result<Draft, String> {
    let range = space.private_cidr().unwrap_or(lease.pool);
    let (range_text, network) = (range.to_string(), space.network().as_str());
    let name = match network {
        "" => in_a_name(&range_text),
        network => format!("{network}-{}", in_a_name(&range_text)),
    };
    if !range.contains(&address.to_ip()) || !is_object_name(&name) {
        return Err(format!("no pool of the Go plugin has it, and none can be made for {range}; {RELEASE}"));
    }
    let (there, odd, wanted) = Default::default();
    Ok(Draft { name, version: None, range, range_text, space: space.clone(), there, odd, wanted })
}

fn reserve(
    reserved: &mut Reserved,
    network: &Network,
    address: Address,
    mut holder: GoAllocation,
    is_any_right: bool,
) -> Result<(), String> {
    let name = reservation_name(network, address);
    if !is_object_name(&name) {
        return Err(format!("its reservation would be named {name:?}, which no object may be; {RELEASE}"));
    }
    // The Go plugin writes none.
    holder.container.clear();
    reserved.insert(name, (holder, is_any_right));
    Ok(())
}

fn reservation_name(network: &Network, address: Address) -> String {
    let address = in_a_name(&address.to_ip().to_string());
    if network.is_unnamed() { address } else { format!("{network}-{address}") }
}

/// Whether an API server takes it for the name of such an object.
fn is_object_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        label.starts_with(is_plain) && label.ends_with(is_plain) && label.chars().all(|c| is_plain(c) || c == '-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Whether an entry is that of a lease. A migration could not learn a pod whose name is none, so the entry knows better.
fn is_same(there: &GoAllocation, lease: &Lease) -> bool {
    let here = GoAllocation::of(lease);
    let is_pod = there.pod == here.pod || lease.owner.pod().is_none();
    is_pod && there.container == here.container && there.interface == here.interface
}

fn finding(space: &Space, address: Address, lease: &Lease, reason: String, fate: Fate) -> Finding {
    Finding {
        object: space.to_string(),
        network: space.network().as_str().to_owned(),
        address: Some(address),
        holders: vec![lease.to_string()],
        reason,
        fate,
    }
}

#[cfg(test)]
mod tests {
    use whereabouts_engine::{Attachment, OperationId, Owner};

    use super::*;

    #[test]
    fn a_pool_that_no_object_has_room_for_is_refused() {
        let network = Network::unnamed();
        let pool: IpNet = "10.0.0.0/8".parse().unwrap();
        let lease = |number: u32| Lease {
            state: LeaseState::Active,
            operation: OperationId::from_bytes([0; 8]),
            attachment: Attachment::new(&"c".repeat(64), "net1", "net"),
            owner: Owner::Container,
            node: "node-1".into(),
            boot: None,
            pool,
            provider: None,
            since: u64::from(number),
        };
        let left = Left {
            pools: vec![GoPool { name: "10.0.0.0-8".into(), range: "10.0.0.0/8".into(), ..GoPool::default() }],
            ..Left::default()
        };
        for (n_held, is_refused) in [(1_000_u32, false), (20_000, true)] {
            let address =
                |number: u32| Address::from(std::net::IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0001 + number)));
            let leases = (0..n_held).map(|number| (address(number), lease(number))).collect();
            let held = Held::from([(Space::shared(network.clone(), whereabouts_engine::Family::V4), leases)]);
            let plan = left.way_back(&held, false);
            assert_eq!(plan.is_refused(), is_refused, "{n_held}");
            assert_eq!(plan.pools[0].n_added, n_held as usize);
        }
    }

    #[test]
    fn names_that_no_object_may_have_are_known() {
        for (name, is_one) in [
            ("10.0.0.0-8", true),
            ("blue-fd00---64", true),
            ("--1", false),
            ("---126", false),
            ("Blue-10.0.0.1", false),
            ("a_b-10.0.0.1", false),
            ("a..b", false),
            ("", false),
        ] {
            assert_eq!(is_object_name(name), is_one, "{name:?}");
        }
    }
}
