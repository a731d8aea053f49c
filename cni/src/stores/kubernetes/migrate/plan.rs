//! What becomes of each address that the Go plugin has given away.
//!
//! Nothing is dropped: what contradicts itself is held, so that nobody is given it, and named.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use whereabouts_engine::{
    Address, Attachment, Holding, IpNet, Lease, LeaseState, Network, OperationId, Owner, Pod, Pool, Sharing, Space,
};

use super::super::go_plugin::{GoAllocation, GoPool, GoReservation, GoSlices, address_at};

/// What the Go plugin has left, and what of it was imported before.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) pools: Vec<GoPool>,
    pub(super) reservations: Vec<GoReservation>,
    pub(super) slices: Vec<GoSlices>,
    /// The pods that are there, by namespace and name with a slash between them.
    pub(super) pods: BTreeMap<String, Running>,
    pub(super) before: Before,
}

/// A pod that is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Running {
    pub(super) uid: String,
    /// Empty before it is bound.
    pub(super) node: String,
}

/// Up to which versions an earlier migration imported.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// The version of each pool.
    pub(super) pools: BTreeMap<String, String>,
    /// The highest version of a reservation.
    pub(super) reservations: u128,
    /// Everything went back since.
    pub(super) is_back: bool,
}

/// What is to be made of it.
#[derive(Debug, Default)]
pub struct Plan {
    /// The pools.
    pub pools: Vec<PlannedPool>,
    /// What is to be held.
    pub holdings: Vec<Holding>,
    /// What a person should look at.
    pub findings: Vec<Finding>,
    /// The spaces that are to begin, also where nothing is held.
    pub spaces: BTreeSet<Space>,
}

/// A pool of the Go plugin.
#[derive(Clone, Debug)]
pub struct PlannedPool {
    /// The name of the object.
    pub name: String,
    /// Its network; `None` where its name does not tell.
    pub network: Option<String>,
    /// Its range, as it was written.
    pub range: String,
    /// Whether it becomes a space of its own.
    pub is_private: bool,
    /// How many addresses it holds.
    pub n_allocations: usize,
    /// Of how many there is a reservation.
    pub n_reserved: usize,
    /// It has not changed since an earlier migration imported it.
    pub is_imported: bool,
}

/// Something that a person should look at.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The object in which it was found.
    pub object: String,
    /// The network.
    pub network: String,
    /// The address; `None` where that cannot be told.
    pub address: Option<Address>,
    /// Who holds the address.
    pub holders: Vec<String>,
    /// What is wrong.
    pub reason: String,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of an address of which something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is held, and only a command frees it.
    Quarantined,
    /// It is held until the runtime deletes its container, on whatever node.
    Held,
    /// There is no address to hold.
    NotImported,
    /// On the way back: the Go plugin has no place for it.
    Unfit,
    /// On the way back: it was not imported.
    Changed,
}

/// Who claims an address.
#[derive(Clone, Debug)]
struct Claim<'l> {
    holder: &'l GoAllocation,
    /// In which pool; `None` for a reservation.
    pool: Option<(&'l str, IpNet)>,
    object: String,
    /// An earlier migration knew of it.
    is_imported: bool,
}

type Places<'l> = BTreeMap<(Space, Address), Vec<Claim<'l>>>;

// === impl Left ===

impl Left {
    /// The highest version of a reservation.
    pub(super) fn newest_reservation(&self) -> u128 {
        self.reservations.iter().filter_map(|reservation| reservation.version.parse().ok()).max().unwrap_or(0)
    }

    /// What is to be made of all this. The pools that are named get spaces of their own.
    pub(super) fn plan(&self, private: &BTreeSet<String>, now: u64, random: impl Fn() -> u64) -> Plan {
        let mut plan = Plan::default();
        let mut places = Places::new();
        for pool in &self.pools {
            let planned = self.claim_pool(pool, private.contains(&pool.name), &mut plan, &mut places);
            plan.pools.push(planned);
        }
        for reservation in &self.reservations {
            self.claim_reservation(reservation, &mut plan, &mut places);
        }
        for pool in &mut plan.pools {
            let is_reserved = |claims: &&Vec<Claim<'_>>| {
                claims.iter().any(|claim| claim.pool.is_some_and(|(name, _)| name == pool.name))
                    && claims.iter().any(|claim| claim.pool.is_none())
            };
            pool.n_reserved = places.values().filter(is_reserved).count();
        }
        for ((space, address), claims) in &places {
            if claims.iter().any(|claim| !claim.is_imported) {
                self.decide(space, *address, claims, now, OperationId::from_bytes(random().to_be_bytes()), &mut plan);
            }
        }
        plan
    }

    fn claim_pool<'l>(
        &'l self,
        pool: &'l GoPool,
        is_private: bool,
        plan: &mut Plan,
        places: &mut Places<'l>,
    ) -> PlannedPool {
        let network = pool.network(&self.slices);
        let planned = PlannedPool {
            name: pool.name.clone(),
            network: network.clone(),
            range: pool.range.clone(),
            is_private,
            n_allocations: pool.allocations.len(),
            n_reserved: 0,
            is_imported: self.before.pools.get(&pool.name).is_some_and(|version| *version == pool.version),
        };
        let object = format!("ippools.whereabouts.cni.cncf.io/{}", pool.name);
        let mut lost = |holders: Vec<String>, reason: String| {
            // Of a pool that holds nothing, nothing is lost.
            if !planned.is_imported && !holders.is_empty() {
                let (object, network) = (object.clone(), network.clone().unwrap_or_default());
                plan.findings.push(Finding {
                    object,
                    network,
                    address: None,
                    holders,
                    reason,
                    fate: Fate::NotImported,
                });
            }
        };
        let everybody = || pool.allocations.iter().map(|(_, holder)| holder.to_string()).collect();
        let Some(name) = &network else {
            let reason = format!("its name is not made of its range {}, so the Go plugin never reads it", pool.range);
            lost(everybody(), reason);
            return planned;
        };
        let known = Network::new(name).map_err(|error| error.to_string());
        let range = pool.range.parse::<IpNet>().map_err(|_| format!("its range {:?} is no CIDR", pool.range));
        let (known, range) = match (known, range) {
            (Ok(known), Ok(range)) => (known, range),
            (Err(reason), _) | (_, Err(reason)) => {
                lost(everybody(), reason);
                return planned;
            }
        };
        let sharing = if is_private { Sharing::Private } else { Sharing::Shared };
        let space = Pool::new(known, range).space(sharing);
        for (key, holder) in &pool.allocations {
            match address_at(range, key) {
                // A private space has the addresses of its range and no others.
                Some(address) if is_private && !range.contains(&address.to_ip()) => {
                    lost(vec![holder.to_string()], format!("{address} is outside of its range"));
                }
                Some(address) => places.entry((space.clone(), address)).or_default().push(Claim {
                    holder,
                    pool: Some((&pool.name, range)),
                    object: object.clone(),
                    is_imported: planned.is_imported,
                }),
                None => lost(vec![holder.to_string()], format!("its key {key:?} leads to no address")),
            }
        }
        plan.spaces.insert(space);
        planned
    }

    fn claim_reservation<'l>(&'l self, reservation: &'l GoReservation, plan: &mut Plan, places: &mut Places<'l>) {
        let object = format!("overlappingrangeipreservations.whereabouts.cni.cncf.io/{}", reservation.name);
        let is_imported = reservation.version.parse().is_ok_and(|version: u128| version <= self.before.reservations);
        let meanings: Vec<(Space, Address)> = reservation
            .meanings()
            .into_iter()
            .filter_map(|(network, address)| {
                Some((Space::shared(Network::new(network).ok()?, address.family()), address))
            })
            .collect();
        let is_of_pod = |meaning: &&(Space, Address)| {
            places
                .get(meaning)
                .is_some_and(|claims| claims.iter().any(|claim| claim.holder.pod == reservation.holder.pod))
        };
        // The pools tell which of them is meant; without any, it is the first whose network has pools.
        let meant = meanings
            .iter()
            .find(is_of_pod)
            .or_else(|| meanings.iter().find(|meaning| places.contains_key(*meaning)))
            .or_else(|| meanings.iter().find(|(space, _)| plan.spaces.contains(space)))
            .or_else(|| meanings.first());
        let Some((space, address)) = meant else {
            if !is_imported {
                plan.findings.push(Finding {
                    object,
                    network: String::new(),
                    address: None,
                    holders: vec![reservation.holder.to_string()],
                    reason: "its name has no address".to_owned(),
                    fate: Fate::NotImported,
                });
            }
            return;
        };
        plan.spaces.insert(space.clone());
        let claim = Claim { holder: &reservation.holder, pool: None, object, is_imported };
        places.entry((space.clone(), *address)).or_default().push(claim);
    }

    /// Decides about one address.
    fn decide(
        &self,
        space: &Space,
        address: Address,
        claims: &[Claim<'_>],
        now: u64,
        operation: OperationId,
        plan: &mut Plan,
    ) {
        let by_pool: Vec<&Claim<'_>> =
            claims.iter().filter(|claim| claim.pool.is_some() && !claim.is_imported).collect();
        let by_reservation = claims.iter().find(|claim| claim.pool.is_none());
        let Some(first) = by_pool.first().copied().or(by_reservation) else { return };
        let is_known = |claim: &Claim<'_>| claim.is_imported && claim.holder.pod == first.holder.pod;
        if by_pool.is_empty() && claims.iter().any(|claim| claim.pool.is_some() && is_known(claim)) {
            return;
        }
        let holders: BTreeSet<&GoAllocation> = by_pool.iter().map(|claim| claim.holder).collect();
        let running = self.pods.get(&first.holder.pod).filter(|pod| !pod.node.is_empty());
        let pod =
            first.holder.pod.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
        let range = first.pool.map(|(_, range)| range.trunc()).filter(|range| range.contains(&address.to_ip()));
        let quarantined = |reason: String| Some((Fate::Quarantined, reason));
        let finding = if by_pool.is_empty() {
            quarantined("it is reserved, and no pool has it".to_owned())
        } else if holders.len() > 1 {
            quarantined("several hold it".to_owned())
        } else if let Some(reservation) = by_reservation.filter(|claim| !claim.holder.may_be(first.holder)) {
            quarantined(format!("it is reserved for another: {}", reservation.holder))
        } else if range.is_none() {
            quarantined("it is outside of the pool's range".to_owned())
        } else if first.holder.container.is_empty() || first.holder.interface.is_empty() {
            quarantined("its container or its interface is not recorded, so no DEL finds it".to_owned())
        } else if pod.is_none() {
            Some((Fate::Held, format!("its podref {:?} names no pod", first.holder.pod)))
        } else if running.is_none() {
            Some((Fate::Held, "its pod is gone, or on no node".to_owned()))
        } else {
            None
        };
        let is_quarantined = matches!(finding, Some((Fate::Quarantined, _)));
        let text = |text: &str| -> Arc<str> { text.into() };
        let owner = pod.map_or(Owner::Container, |(namespace, name)| {
            Owner::Pod(Pod {
                namespace: text(namespace),
                name: text(name),
                uid: running.map(|running| text(&running.uid)),
            })
        });
        let lease = Lease {
            state: if is_quarantined { LeaseState::Quarantined } else { LeaseState::Active },
            operation,
            attachment: Attachment::new(&first.holder.container, &first.holder.interface, ""),
            owner,
            node: running.map_or_else(|| text(""), |running| text(&running.node)),
            boot: None,
            pool: range.unwrap_or_else(|| self.pool_of(space, address)),
            provider: None,
            since: now,
        };
        plan.holdings.push(Holding { space: space.clone(), address, lease });
        if let Some((fate, reason)) = finding {
            plan.findings.push(Finding {
                object: first.object.clone(),
                network: space.network().as_str().to_owned(),
                address: Some(address),
                holders: claims.iter().map(|claim| claim.to_string()).collect(),
                reason,
                fate,
            });
        }
    }

    /// The smallest pool that has an address which no pool holds, else the address alone.
    fn pool_of(&self, space: &Space, address: Address) -> IpNet {
        if let Some(private) = space.private_cidr() {
            return private;
        }
        let is_of_network = |pool: &&GoPool| pool.network(&self.slices).as_deref() == Some(space.network().as_str());
        let ranges = self.pools.iter().filter(is_of_network).filter_map(|pool| pool.range.parse::<IpNet>().ok());
        let ranges = ranges.map(|range| range.trunc()).filter(|range| range.contains(&address.to_ip()));
        ranges.max_by_key(|range| range.prefix_len()).unwrap_or_else(|| address.to_net())
    }
}

// === impl Plan ===

impl Plan {
    /// What is to be held in a space.
    pub(super) fn leases_of(&self, space: &Space) -> Vec<(Address, Lease)> {
        let of_space = self.holdings.iter().filter(|holding| holding.space == *space);
        of_space.map(|holding| (holding.address, holding.lease.clone())).collect()
    }

    /// How many findings have this fate.
    #[must_use]
    pub fn count(&self, fate: Fate) -> usize {
        self.findings.iter().filter(|finding| finding.fate == fate).count()
    }
}

// === impl Fate ===

impl Fate {
    /// As the report names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quarantined => "quarantined",
            Self::Held => "held",
            Self::NotImported => "not imported",
            Self::Unfit => "does not fit",
            Self::Changed => "changed since",
        }
    }
}

// === impl GoAllocation ===

impl GoAllocation {
    /// Whether a reservation with this holder can be that of an allocation: what it does not say may be anything.
    pub(super) fn may_be(&self, allocation: &Self) -> bool {
        let fits = |here: &str, there: &str| here.is_empty() || here == there;
        self.pod == allocation.pod
            && fits(&self.interface, &allocation.interface)
            && fits(&self.container, &allocation.container)
    }
}

impl fmt::Display for GoAllocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {:?}", self.pod)?;
        if !self.container.is_empty() {
            write!(f, ", container {}", self.container)?;
        }
        if !self.interface.is_empty() {
            write!(f, ", interface {}", self.interface)?;
        }
        Ok(())
    }
}

impl fmt::Display for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pool {
            Some((pool, _)) => write!(f, "{} (pool {pool})", self.holder),
            None => write!(f, "{} (reservation)", self.holder),
        }
    }
}
