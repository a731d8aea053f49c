//! Moving over from the Go plugin: a fence around its objects, then its allocations into blocks, in one step for each
//! space. And back: what is held in blocks by then into the Go plugin's objects, behind the same fence, when nobody is given
//! an address here any more.

mod back;
mod fence;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use whereabouts_engine::{
    Address, AdoptError, Adopted, BlockId, Environment, HANDED_OVER, Holding, LeaseState, Network, Offset, ReadError,
    Release, Space, Store, Stored,
};

pub use self::back::{ReturnedPool, WayBack};
pub use self::fence::{Exempt, Fence};
pub use self::plan::{Fate, Finding, Plan, PlannedPool};

use self::back::{Held, ReturnedReservation};
use self::fence::refused;
use self::plan::{Before, Left, Running};
use super::client::Resource;
use super::go_plugin::GoAllocation;
use super::{KubernetesHost, KubernetesStore};
use crate::stores::ArbiterError;

/// The ConfigMap in which a migration writes down up to where it has imported.
const MARK: &str = "whereabouts-migrate";

/// How often the way back is gone on with while others write.
const ATTEMPTS: usize = 5;

/// Why a migration does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The API server turned something away.
    #[error("{0}")]
    Refused(String),
    /// Somebody goes on writing.
    #[error("the Go plugin is still at work: {0} keeps changing; see that nobody calls it, and run this again")]
    Restless(String),
    /// The pools are elsewhere.
    #[error(
        "the namespace {asked} has none of the Go plugin's pools; {} has; name it with --namespace",
        there.iter().cloned().collect::<Vec<_>>().join(", ")
    )]
    Elsewhere {
        /// Where they were looked for.
        asked: String,
        /// Where they are.
        there: BTreeSet<String>,
    },
    /// There is nothing to go back with.
    #[error(
        "the namespace {0} has no IPSpaces, so nothing was given away from here: if there is a fence, `whereabouts migrate \
         --unfence` takes it away, and nothing else is to be done; other namespaces are named with --namespace"
    )]
    NothingHeld(String),
    /// A space cannot go back as it is.
    #[error("{space} is frozen: {reason}; run `whereabouts repair`, then this again")]
    Frozen {
        /// The space.
        space: Space,
        /// Why.
        reason: String,
    },
    /// It went back before.
    #[error(
        "the addresses of {} went back to the Go plugin (whereabouts migrate --back), so nothing is imported into it; to \
         migrate anew, begin anew: see \"Going back\" in the README", .0.join(", ")
    )]
    WentBack(Vec<String>),
    /// No pool has this name.
    #[error("there is no pool {0}; `kubectl get ippools.whereabouts.cni.cncf.io` has their names")]
    NoSuchPool(String),
    /// The leases cannot be taken over.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// The cluster cannot be read.
    #[error(transparent)]
    Store(#[from] ReadError),
    /// The host, or the cluster, cannot be used.
    #[error(transparent)]
    Arbiter(#[from] ArbiterError),
}

/// What came of freeing an address by an operator's word.
#[derive(Debug)]
pub enum Freed {
    /// It is free; these held it.
    Yes(Holding),
    /// Nobody holds it.
    NotHeld,
    /// A call of the plugin wrote the lease, so a DEL frees it.
    Refused(Holding),
    /// It is held in several spaces.
    Several(Vec<Holding>),
}

impl KubernetesHost {
    /// Looks whether the pools are where this is pointed to.
    ///
    /// # Errors
    /// [`MigrateError::Elsewhere`] when they are in other namespaces only; [`MigrateError::WentBack`] when they are the
    /// Go plugin's again.
    pub fn find_pools(&self) -> Result<(), MigrateError> {
        self.migrating(async |store| {
            let back = store.handed_over().await?;
            if !back.is_empty() {
                let names = back.iter().map(|name| super::object_name(Resource::Spaces, name));
                return Err(MigrateError::WentBack(names.collect()));
            }
            if !store.go_pools().await?.is_empty() || !store.go_reservations().await?.is_empty() {
                return Ok(());
            }
            let there = store.go_namespaces().await?;
            let asked = store.client.namespace().await.map_err(MigrateError::Refused)?;
            if there.is_empty() { Ok(()) } else { Err(MigrateError::Elsewhere { asked, there }) }
        })
    }

    /// Denies writes to the Go plugin's objects, and waits until the API server does.
    ///
    /// # Errors
    /// [`MigrateError`] when the API server does not have it.
    pub fn raise_fence(&self, exempt: Exempt) -> Result<Fence, MigrateError> {
        self.migrating(async |store| store.raise_fence(exempt).await)
    }

    /// Takes the fence away; says whether there was one.
    ///
    /// # Errors
    /// [`MigrateError`] when the API server does not have it.
    pub fn lower_fence(&self) -> Result<bool, MigrateError> {
        self.migrating(async |store| store.lower_fence().await)
    }

    /// Waits until the Go plugin's objects have not changed for so long.
    ///
    /// # Errors
    /// [`MigrateError::Restless`] when they go on changing.
    pub fn wait_until_quiet(&self, quiet: Duration) -> Result<(), MigrateError> {
        self.migrating(async |store| store.wait_until_quiet(quiet).await)
    }

    /// Says what is to be made of the Go plugin's objects; the pools that are named get spaces of their own.
    ///
    /// # Errors
    /// [`MigrateError`] when they cannot be read.
    pub fn plan_migration(&self, private: &BTreeSet<String>) -> Result<(Plan, Mark), MigrateError> {
        self.migrating(async |store| {
            let left = store.left().await?;
            if let Some(name) = private.iter().find(|name| left.pools.iter().all(|pool| pool.name != **name)) {
                return Err(MigrateError::NoSuchPool(name.clone()));
            }
            let plan = left.plan(private, self.patience.now(), || self.patience.random());
            Ok((plan, Mark::of(&left)))
        })
    }

    /// Says what [`Self::migrate`] would do now, for each space.
    ///
    /// # Errors
    /// [`MigrateError::Adopt`] when somebody else holds one of the addresses.
    pub fn would_migrate(&self, plan: &Plan) -> Result<Vec<(Space, Adopted)>, MigrateError> {
        self.on_cluster(async |host, _| {
            let mut adopted = Vec::new();
            for space in &plan.spaces {
                adopted.push((space.clone(), host.would_adopt(space, &plan.leases_of(space)).await?));
            }
            Ok(adopted)
        })
    }

    /// Imports what is planned, and writes down that it is done.
    ///
    /// # Errors
    /// [`MigrateError::Adopt`] when somebody else holds one of the addresses: then nothing was written.
    pub fn migrate(&self, plan: &Plan, mark: &Mark) -> Result<Vec<(Space, Adopted)>, MigrateError> {
        // In all spaces it must be possible before it is done in one.
        self.would_migrate(plan)?;
        self.on_cluster(async |host, store| {
            let mut adopted = Vec::new();
            for space in &plan.spaces {
                adopted.push((space.clone(), host.adopt(space, &plan.leases_of(space)).await?));
            }
            store.write_mark(mark).await?;
            Ok(adopted)
        })
    }

    /// Frees an address that a migration brought, by an operator's word.
    ///
    /// # Errors
    /// [`MigrateError`] when the cluster cannot be used.
    pub fn free_migrated(&self, address: Address, network: &Network) -> Result<Freed, MigrateError> {
        self.on_cluster(async |host, store| {
            let mut holdings = Vec::new();
            for (space, listed) in store.list_indexes().await? {
                let block = space.block_of(address).filter(|_| space.network() == network);
                let Some(block) = block else { continue };
                listed?;
                let stored = store.read_block(&block).await?;
                let lease = stored.and_then(|stored| stored.object.get(Offset::of(address)).cloned());
                holdings.extend(lease.map(|lease| Holding { space, address, lease }));
            }
            let holding = match holdings.pop() {
                Some(holding) if holdings.is_empty() => holding,
                None => return Ok(Freed::NotHeld),
                Some(last) => {
                    holdings.push(last);
                    return Ok(Freed::Several(holdings));
                }
            };
            let lease = &holding.lease;
            if lease.state != LeaseState::Quarantined && !lease.is_migrated() {
                return Ok(Freed::Refused(holding));
            }
            let (space, operation) = (holding.space.clone(), Some(lease.operation));
            let released = host.release(&[Release::Address { space, address, operation }]).await;
            for answer in released.map_err(ArbiterError::from)? {
                let released = answer.map_err(|error| MigrateError::Refused(error.to_string()))?;
                if let Some((_, reason)) = released.queued.first() {
                    let reason = format!("{address} could not be freed now; run this again: {reason}");
                    return Err(MigrateError::Refused(reason));
                }
            }
            Ok(Freed::Yes(holding))
        })
    }

    /// Whether everything went back before: then the Go plugin's objects are its own again.
    ///
    /// # Errors
    /// [`MigrateError`] when that cannot be read.
    pub fn is_back(&self) -> Result<bool, MigrateError> {
        self.migrating(async |store| Ok(store.mark().await?.is_back))
    }

    /// Says what is to be made of the Go plugin's objects, so that it holds what is held here.
    ///
    /// # Errors
    /// [`MigrateError::NothingHeld`] and [`MigrateError::Frozen`] when there is no going back.
    pub fn plan_way_back(&self, make_pools: bool) -> Result<WayBack, MigrateError> {
        self.migrating(async |store| Ok(store.left().await?.way_back(&store.held().await?, make_pools)))
    }

    /// Freezes all spaces for good: nobody is given an address here any more, and what is held stays as it is.
    ///
    /// # Errors
    /// [`MigrateError`] when some are not frozen yet; then it is to be called again.
    pub fn hand_over(&self) -> Result<(), MigrateError> {
        self.on_cluster(async |host, store| store.hand_over(&host).await)
    }

    /// Writes the Go plugin's objects until they hold what is held here, reads that back, and writes down that it is done.
    /// Says what it found to do; nothing was written when that is [refused](WayBack::is_refused).
    ///
    /// # Errors
    /// [`MigrateError`] when it is not done; then it is to be called again.
    pub fn go_back(&self, make_pools: bool) -> Result<WayBack, MigrateError> {
        self.on_cluster(async |host, store| {
            let mut found: Option<WayBack> = None;
            for _ in 0..ATTEMPTS {
                // One may have begun while the others were frozen.
                store.hand_over(&host).await?;
                let left = store.left().await?;
                let plan = left.way_back(&store.held().await?, make_pools);
                if plan.is_refused() {
                    return Ok(plan);
                }
                if plan.is_done() {
                    store.write_mark(&Mark { is_back: true, ..Mark::of(&left) }).await?;
                    return Ok(found.unwrap_or(plan));
                }
                store.write_back(&plan).await?;
                found.get_or_insert(plan);
            }
            Err(MigrateError::Restless("what was written for it".to_owned()))
        })
    }

    fn migrating<T>(
        &self,
        work: impl AsyncFn(&KubernetesStore<'_>) -> Result<T, MigrateError>,
    ) -> Result<T, MigrateError> {
        self.on_cluster(async |_, store| work(store).await)
    }

    fn on_cluster<T>(
        &self,
        work: impl AsyncFn(super::cluster::Host<'_>, &KubernetesStore<'_>) -> Result<T, MigrateError>,
    ) -> Result<T, MigrateError> {
        self.run(async |host, store| Ok(work(host, store).await))?.map_err(MigrateError::Store)?
    }
}

/// Up to where a migration has imported: what has not changed since is not looked at again, for the plugin has freed
/// some of it and given it to others.
#[derive(Clone, Debug, Default)]
pub struct Mark {
    pools: BTreeMap<String, String>,
    reservations: u128,
    is_back: bool,
}

// === impl Mark ===

impl Mark {
    fn of(left: &Left) -> Self {
        Self {
            pools: left.pools.iter().map(|pool| (pool.name.clone(), pool.version.clone())).collect(),
            reservations: left.newest_reservation().max(left.before.reservations),
            is_back: false,
        }
    }
}

impl KubernetesStore<'_> {
    /// All that the Go plugin has left.
    async fn left(&self) -> Result<Left, MigrateError> {
        let (pools, reservations) = (self.go_pools().await?, self.go_reservations().await?);
        let held = pools.iter().flat_map(|pool| pool.allocations.iter().map(|(_, holder)| &holder.pod));
        let named: BTreeSet<&str> =
            held.chain(reservations.iter().map(|one| &one.holder.pod)).map(String::as_str).collect();
        let pods = if named.is_empty() { BTreeMap::new() } else { self.pods(&named).await? };
        let (slices, before) = (self.go_slices().await?, self.mark().await?);
        Ok(Left { pools, reservations, slices, pods, before })
    }

    /// The pods of these names.
    async fn pods(&self, named: &BTreeSet<&str>) -> Result<BTreeMap<String, Running>, MigrateError> {
        let read = |pod: Value| {
            let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let name = format!("{}/{}", text("/metadata/namespace"), text("/metadata/name"));
            let is_named = named.contains(name.as_str());
            is_named.then(|| (name, Running { uid: text("/metadata/uid"), node: text("/spec/nodeName") }))
        };
        let pods = self.all_if_defined(Resource::Pods, "", read).await?;
        Ok(pods.unwrap_or_default().into_iter().collect())
    }

    /// What earlier migrations have imported.
    async fn mark(&self) -> Result<Before, MigrateError> {
        let reply = self.ask(Method::GET, Resource::ConfigMaps, Some(MARK), "", None).await?;
        match reply.status {
            StatusCode::NOT_FOUND => return Ok(Before::default()),
            status if status.is_success() => {}
            _ => return Err(refused(Resource::ConfigMaps, MARK, &reply)),
        }
        let unreadable = || {
            let what = "it cannot be read; it was changed by hand: delete it only if nothing was imported yet";
            MigrateError::Refused(format!("configmaps/{MARK}: {what}"))
        };
        let map: Value = serde_json::from_slice(&reply.body).map_err(|_| unreadable())?;
        let text = |key: &str| map.pointer(key).and_then(Value::as_str).ok_or_else(unreadable);
        Ok(Before {
            pools: serde_json::from_str(text("/data/pools")?).map_err(|_| unreadable())?,
            reservations: text("/data/reservations")?.parse().map_err(|_| unreadable())?,
            is_back: map.pointer("/data/back").is_some(),
        })
    }

    async fn write_mark(&self, mark: &Mark) -> Result<(), MigrateError> {
        let mut data = json!({
            "pools": json!(mark.pools).to_string(), "reservations": mark.reservations.to_string(),
        });
        if let Some(data) = data.as_object_mut().filter(|_| mark.is_back) {
            data.insert("back".to_owned(), json!("everything went back to the Go plugin"));
        }
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": MARK,
                "annotations": {
                    "ipam.whereabouts.dev/about": "which versions of the Go plugin's objects whereabouts migrate has \
                                                   imported; without this it would import them again",
                },
            },
            "data": data,
        });
        self.put(Resource::ConfigMaps, MARK, map).await.map(drop)
    }

    /// All that is held here.
    async fn held(&self) -> Result<Held, MigrateError> {
        let mut held = Held::new();
        for (space, listed) in self.list_indexes().await? {
            let index = listed?.object;
            if let Some(reason) = index.frozen().filter(|_| !index.is_handed_over()) {
                return Err(MigrateError::Frozen { space, reason: reason.to_owned() });
            }
            let mut listed = BTreeSet::new();
            let leases = held.entry(space.clone()).or_default();
            for (number, block) in self.list_blocks(&space).await? {
                let id = BlockId { space: space.clone(), number };
                listed.insert(number);
                leases.extend(block?.object.iter().map(|(offset, lease)| (id.address_at(offset), lease.clone())));
            }
            if let Some(number) = index.existing().iter().find(|number| !listed.contains(number)) {
                let object = format!("block {}", BlockId { space, number });
                let reason = "it is listed in the index and gone, and who held addresses of it is not known; run \
                              `whereabouts repair`, then this again";
                return Err(ReadError::Unsound { object, reason: reason.to_owned() }.into());
            }
        }
        if held.is_empty() {
            return Err(MigrateError::NothingHeld(self.client.namespace().await.map_err(MigrateError::Refused)?));
        }
        Ok(held)
    }

    /// Freezes all spaces for good.
    async fn hand_over(&self, host: &super::cluster::Host<'_>) -> Result<(), MigrateError> {
        loop {
            let mut is_frozen = true;
            for (space, _) in self.list_indexes().await? {
                if !self.is_handed_over(&space).await? {
                    // What comes of it is read again: a repair may be under way.
                    is_frozen &= host.freeze(&space, HANDED_OVER).await? && self.is_handed_over(&space).await?;
                }
            }
            if is_frozen {
                return Ok(());
            }
            if self.patience.is_past_deadline() {
                return Err(MigrateError::Refused("not all spaces could be frozen in time; run this again".to_owned()));
            }
        }
    }

    /// Whether a space is frozen for good, with all of its blocks.
    async fn is_handed_over(&self, space: &Space) -> Result<bool, MigrateError> {
        match self.read_index(space).await? {
            Some(stored) if stored.object.is_handed_over() => {}
            Some(Stored { object, .. }) => match object.frozen() {
                None => return Ok(false),
                Some(reason) => {
                    return Err(MigrateError::Frozen { space: space.clone(), reason: reason.to_owned() });
                }
            },
            None => return Ok(false),
        }
        for (_, block) in self.list_blocks(space).await? {
            if !block?.object.is_frozen() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes what is planned, up to where somebody else has written something.
    async fn write_back(&self, plan: &WayBack) -> Result<(), MigrateError> {
        for pool in plan.pools.iter().filter(|pool| !pool.is_done()) {
            let allocations: BTreeMap<&String, Value> =
                pool.allocations.iter().map(|(key, holder)| (key, holder.in_a_pool())).collect();
            let spec = json!({ "range": pool.range, "allocations": allocations });
            if !self.write_go_object(Resource::GoPools, &pool.name, pool.version.as_deref(), Some(spec)).await? {
                return Ok(());
            }
        }
        for ReturnedReservation { name, version, holder } in &plan.reservations {
            let spec = holder.as_ref().map(GoAllocation::in_a_reservation);
            if !self.write_go_object(Resource::GoReservations, name, version.as_deref(), spec).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Makes one of the Go plugin's objects, puts what it specifies in place of that of a version, or deletes that version;
    /// says whether that was still there.
    async fn write_go_object(
        &self,
        resource: Resource,
        name: &str,
        version: Option<&str>,
        spec: Option<Value>,
    ) -> Result<bool, MigrateError> {
        let (method, body) = match (version, spec) {
            (None, spec) => {
                let kind = match resource {
                    Resource::GoPools => "IPPool",
                    _ => "OverlappingRangeIPReservation",
                };
                let object = json!({
                    "apiVersion": "whereabouts.cni.cncf.io/v1alpha1", "kind": kind, "metadata": { "name": name },
                    "spec": spec,
                });
                (Method::POST, object)
            }
            (Some(version), None) => {
                let preconditions = json!({ "resourceVersion": version });
                let options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions });
                (Method::DELETE, options)
            }
            (Some(version), Some(spec)) => {
                // What others have written beside it stays.
                let there = self.ask(Method::GET, resource, Some(name), "", None).await?;
                let mut object: Value = match there.status {
                    StatusCode::NOT_FOUND => return Ok(false),
                    status if status.is_success() => serde_json::from_slice(&there.body).unwrap_or_default(),
                    _ => return Err(refused(resource, name, &there)),
                };
                let read = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
                let (true, Some(fields)) = (read == Some(version), object.as_object_mut()) else { return Ok(false) };
                fields.insert("spec".to_owned(), spec);
                (Method::PUT, object)
            }
        };
        self.write_behind_fence((method, resource, name), &body).await
    }
}
