//! A call on this host whose addresses a cluster decides: the ledger, the store, and a runtime for the time that the
//! call takes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use whereabouts_engine::{
    Address, Allocate, AllocateError, Allocated, Attachment, Check, CheckError, ClusterHost, ClusterLedger, Collect,
    Environment, HANDED_OVER, HostFacts, KnownStore, Lease, OpenOptions, ReadError, Reinserted, Release, ReleaseError,
    Released, Space, Store, Survey, Verified, Waited, Want,
};

use super::super::ArbiterError;
use super::client::{Client, Resource};
use super::data::ClusterId;
use super::patience::Patience;
use super::reading::unsound;
use super::{KubernetesStore, cluster_id, unavailable};

/// How long a DEL, CHECK or GC waits for a cluster of which it hears nothing at all.
pub const SILENCE: Duration = Duration::from_secs(3);

/// How many ledgers a call may begin anew: one, when the kubeconfig leads to another cluster than before.
const LEDGERS: usize = 2;

/// This host as one of a Kubernetes cluster.
#[derive(Debug)]
pub struct KubernetesHost {
    event_loop: EventLoop,
    ledger: ClusterLedger,
    kubeconfig: PathBuf,
    /// In place of the one that the kubeconfig's context names.
    namespace: Option<String>,
    /// Whether a ledger that belongs to another cluster than the one that is reached is set aside.
    begins_anew: bool,
    pub(super) patience: Patience,
}

/// Why a space is frozen whose cluster was put back to an older state.
pub const RESTORED: &str = "an operator says that an older state of the cluster was restored";

/// What is frozen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    /// The spaces, and why.
    pub spaces: Vec<(Space, String)>,
    /// What is wrong with those that cannot be read.
    pub unreadable: Vec<ReadError>,
}

/// What came of opening a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is open.
    Yes,
    /// These nodes have not reported.
    Missing(BTreeSet<String>),
    /// Its leases went to another program.
    Never,
}

pub(super) type Host<'a> = ClusterHost<'a, KubernetesStore<'a>, Patience>;

/// What drives the requests of a call. It ends without those who look a name up: they cannot be stopped, and may take far
/// longer than the call.
#[derive(Debug)]
struct EventLoop(Option<Runtime>);

// === impl EventLoop ===

impl EventLoop {
    fn start() -> std::io::Result<Self> {
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map(Some).map(Self)
    }

    fn run<T>(&self, work: impl Future<Output = Result<T, ArbiterError>>) -> Result<T, ArbiterError> {
        match &self.0 {
            Some(runtime) => runtime.block_on(work),
            // Only while it is dropped.
            None => Err(ArbiterError::Runtime(std::io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

// === impl KubernetesHost ===

impl KubernetesHost {
    /// Opens the ledger of this host for a call that ends after `patience`; `silence` is how long it waits for a cluster
    /// that does not answer at all. A ledger that belongs to another cluster than the one that is reached is set aside.
    ///
    /// # Errors
    /// [`ArbiterError`] names the file and the cure.
    pub fn open(
        options: OpenOptions,
        facts: HostFacts,
        kubeconfig: &Path,
        patience: Duration,
        silence: Duration,
    ) -> Result<Self, ArbiterError> {
        let now = Instant::now();
        let deadline = now.checked_add(patience).unwrap_or(now);
        let event_loop = EventLoop::start().map_err(ArbiterError::Runtime)?;
        let ledger = ClusterLedger::open(options, facts, deadline)?;
        let (kubeconfig, patience) = (kubeconfig.to_owned(), Patience::new(deadline, silence));
        Ok(Self { event_loop, ledger, kubeconfig, namespace: None, begins_anew: true, patience })
    }

    /// Works in this namespace, whatever the kubeconfig's context names.
    #[must_use]
    pub fn in_namespace(self, namespace: String) -> Self {
        Self { namespace: Some(namespace), ..self }
    }

    /// Works for a person, who may name any cluster: the ledger of this host stays that of the plugin's.
    #[must_use]
    pub fn for_person(self) -> Self {
        Self { begins_anew: false, ..self }
    }

    /// The ledger alone, for what needs no cluster.
    #[must_use]
    pub fn ledger(&self) -> &ClusterLedger {
        &self.ledger
    }

    /// Assigns addresses to one attachment; while other calls on this host assign some of the same spaces, one of them
    /// may do it.
    ///
    /// # Errors
    /// [`ArbiterError`] when the ledger cannot be used; then nothing was assigned.
    pub fn allocate(&self, request: &Allocate) -> Result<Result<Vec<Allocated>, AllocateError>, ArbiterError> {
        let turn = match self.ledger.wait_to_allocate(request, &self.address()) {
            Waited::Served(allocated) => return Ok(Ok(allocated)),
            Waited::Turn(turn) => turn,
        };
        let answer = self.run(async |host, store| {
            self.remember_kubeconfig()?;
            host.carry_out_spooled().await?;
            for space in request.wants.iter().map(Want::space) {
                if let Err(error) = self.may_begin(&host, store, &space).await? {
                    return Ok(Err(error.into()));
                }
            }
            let answer = host.allocate_for_all(request, &turn).await?;
            self.settle(&host).await;
            Ok(answer)
        })?;
        Ok(answer.unwrap_or_else(|error| Err(error.into())))
    }

    /// Frees what each request names, or queues it. The answers are in the order of the requests.
    ///
    /// # Errors
    /// [`ArbiterError`] when the ledger cannot be used, or when nobody can say whether it knows everything that this node
    /// holds: then it is to be queued beside it.
    pub fn release(&self, requests: &[Release]) -> Result<Vec<Result<Released, ReleaseError>>, ArbiterError> {
        self.run(async |host, _| {
            host.carry_out_spooled().await?;
            if !self.knows_all(requests)? {
                host.rebuild_if_behind().await??;
            }
            let answers = host.release(requests).await?;
            self.settle(&host).await;
            Ok(answers)
        })?
        .map_err(ArbiterError::from)
    }

    /// Checks that attachments hold what they should. The answers are in the order of the requests.
    ///
    /// # Errors
    /// [`ArbiterError`] when the ledger cannot be used.
    pub fn check(&self, requests: &[Check]) -> Result<Vec<Result<(), CheckError>>, ArbiterError> {
        let checked = self.run(async |host, _| {
            for Check { attachment, .. } in requests {
                if !self.ledger.knows(&attachment.container, &attachment.interface)? {
                    host.rebuild_if_behind().await??;
                }
            }
            Ok(host.check(requests).await?)
        })?;
        Ok(checked.unwrap_or_else(|error| vec![Err(CheckError::Store(error)); requests.len()]))
    }

    /// Frees what this host recorded for a CNI network and the runtime no longer lists.
    ///
    /// # Errors
    /// [`ArbiterError`] when the ledger or the cluster cannot be used.
    pub fn collect(&self, list: &Collect) -> Result<Vec<Result<Released, ReleaseError>>, ArbiterError> {
        self.run(async |host, _| {
            host.carry_out_spooled().await?;
            host.rebuild_if_behind().await??;
            let answers = host.collect(list).await?;
            self.settle(&host).await;
            Ok(answers)
        })?
        .map_err(ArbiterError::from)
    }

    /// What an attachment holds; a ledger that does not know it, and does not know everything, asks the cluster first.
    ///
    /// # Errors
    /// [`ArbiterError`] when the ledger, or the cluster, cannot be used.
    pub fn leases_of(&self, attachment: &Attachment) -> Result<Vec<(Address, Lease)>, ArbiterError> {
        if !self.ledger.knows(&attachment.container, &attachment.interface)? {
            self.run(async |host, _| Ok(host.rebuild_if_behind().await?))??.map_err(ArbiterError::from)?;
        }
        Ok(self.ledger.leases_of(attachment)?)
    }

    /// Says for each want whether an allocation would find an address, as far as the ledger knows: the cluster is not
    /// asked.
    ///
    /// # Errors
    /// [`ArbiterError`] when the ledger cannot be read.
    pub fn has_room(&self, wants: &[Want]) -> Result<Vec<Result<(), AllocateError>>, ArbiterError> {
        Ok(self.ledger.has_room(wants, &self.patience)?)
    }

    /// The kubeconfig with which the ledger was used last.
    ///
    /// # Errors
    /// [`ArbiterError`] when the ledger cannot be read.
    pub fn known_kubeconfig(&self) -> Result<Option<PathBuf>, ArbiterError> {
        Ok(self.ledger.store()?.map(|known| PathBuf::from(&*known.address)))
    }

    /// Reads everything that the cluster holds.
    ///
    /// # Errors
    /// [`ArbiterError`] when the cluster cannot be read.
    pub fn survey(&self) -> Result<Survey, ArbiterError> {
        Ok(self.run(async |host, _| Ok(host.survey().await?))??)
    }

    /// Holds the cluster's blocks against its indexes, and this host's ledger against the blocks.
    ///
    /// # Errors
    /// [`ArbiterError`] when the cluster or the ledger cannot be read.
    pub fn verify(&self) -> Result<Verified, ArbiterError> {
        Ok(self.run(async |host, _| Ok(host.verify().await?))??)
    }

    /// The spaces that are frozen.
    ///
    /// # Errors
    /// [`ArbiterError`] when the cluster cannot be read.
    pub fn frozen_spaces(&self) -> Result<Frozen, ArbiterError> {
        self.run(async |_, store| {
            let mut frozen = Frozen::default();
            for (space, listed) in store.list_indexes().await? {
                match listed {
                    Ok(stored) => frozen.spaces.extend(stored.object.frozen().map(|reason| (space, reason.to_owned()))),
                    Err(error) => frozen.unreadable.push(error),
                }
            }
            Ok(frozen)
        })?
        .map_err(ArbiterError::from)
    }

    /// Freezes every space that the cluster has or this host has ever seen, by an operator's word that an older state was
    /// restored; says which were not frozen before.
    ///
    /// # Errors
    /// [`ArbiterError`] when the cluster or the ledger cannot be used; then this is to be called again.
    pub fn freeze_restored(&self) -> Result<Vec<Space>, ArbiterError> {
        let seen = self.ledger.spaces()?;
        Ok(self.run(async |host, store| {
            let mut spaces: BTreeSet<Space> = seen.iter().cloned().collect();
            for (space, listed) in store.list_indexes().await? {
                match listed {
                    Ok(stored) if stored.object.frozen().is_none() => drop(spaces.insert(space)),
                    // What cannot be read stops whoever reads it.
                    _ => drop(spaces.remove(&space)),
                }
            }
            for space in &spaces {
                if !host.freeze(space, RESTORED).await? {
                    return Err(unavailable(format!("{space} could not be frozen in time; run this again")).into());
                }
            }
            Ok(spaces.into_iter().collect())
        })??)
    }

    /// Puts back what this host proves to have in a frozen space, and reports that for all.
    ///
    /// # Errors
    /// [`ArbiterError`] when the ledger or the cluster cannot be used.
    pub fn reinsert(&self, space: &Space) -> Result<Reinserted, ArbiterError> {
        Ok(self.run(async |host, _| Ok(host.reinsert(space).await??))??)
    }

    /// Opens a frozen space again, if all nodes have reported that are not lost: those of the cluster, and those that
    /// hold something in the space.
    ///
    /// # Errors
    /// [`ArbiterError`] when the cluster cannot be used.
    pub fn open_again(&self, space: &Space, lost: &BTreeSet<String>) -> Result<Opened, ArbiterError> {
        Ok(self.run(async |host, store| {
            let Some(stored) = store.read_index(space).await? else { return Ok(Opened::Yes) };
            if stored.object.is_handed_over() {
                return Ok(Opened::Never);
            }
            let reported = stored.object.reported();
            let mut nodes = store.nodes().await?;
            for (_, listed) in store.list_blocks(space).await? {
                nodes.extend(listed?.object.iter().map(|(_, lease)| lease.node.to_string()));
            }
            // Of what was on no node that a migration could learn, no node can report.
            nodes.remove("");
            let has_reported = |node: &String| reported.contains(node.as_str()) || lost.contains(node);
            nodes.retain(|node| !has_reported(node));
            if !nodes.is_empty() {
                return Ok(Opened::Missing(nodes));
            }
            host.thaw(space).await?;
            Ok(Opened::Yes)
        })??)
    }

    /// Whether the ledger knows every attachment that is named.
    fn knows_all(&self, requests: &[Release]) -> Result<bool, ArbiterError> {
        for request in requests {
            if let Release::Attachment { container, interface, .. } = request
                && !self.ledger.knows(container, interface)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Carries out what earlier calls have left. What fails is left to the next call.
    async fn settle(&self, host: &Host<'_>) {
        if self.patience.is_past_deadline() {
            return;
        }
        if let Err(error) = host.settle_left_over().await {
            tracing::warn!(%error, "what earlier calls have left stays to be done");
        }
    }

    /// Looks, before the first address of a space is given away here, whether the Go plugin has given some away already,
    /// and learns what a migration made of them.
    async fn may_begin(
        &self,
        host: &Host<'_>,
        store: &KubernetesStore<'_>,
        space: &Space,
    ) -> Result<Result<(), ReadError>, ArbiterError> {
        if self.ledger.knows_space(space)? {
            return Ok(Ok(()));
        }
        match store.read_index(space).await {
            Ok(Some(stored)) => Ok(host.learn_new(space, stored.object.epoch()).await?),
            Ok(None) => Ok(Self::is_nobody_elses(store, space).await),
            // Foreign or unsound, it is the operation that says what comes of it.
            Err(ReadError::Foreign { .. } | ReadError::Unsound { .. }) => Ok(Ok(())),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Refuses a space that has not begun here and whose addresses the Go plugin gives away.
    async fn is_nobody_elses(store: &KubernetesStore<'_>, space: &Space) -> Result<(), ReadError> {
        // Where one space went back to the Go plugin, no other one begins: it would be that plugin's, too.
        if let Some(other) = store.handed_over().await?.first() {
            let reason =
                format!("{HANDED_OVER}, so {space} does not begin here; call that program in place of this one");
            return Err(unsound(Resource::Spaces, other, reason));
        }
        let pools = store.go_pools_in_use(space).await?;
        let Some(first) = pools.first() else { return Ok(()) };
        let reason = format!(
            "the Go plugin has given away addresses of {space} ({} pools hold some); run `whereabouts migrate`",
            pools.len()
        );
        Err(unsound(Resource::GoPools, first, reason))
    }

    /// Works with the store. A ledger that belongs to another cluster than the one that is reached is set aside, unless it
    /// is a person who asks, and the work is done with a new one.
    pub(super) fn run<T>(
        &self,
        work: impl AsyncFn(Host<'_>, &KubernetesStore<'_>) -> Result<T, ArbiterError>,
    ) -> Result<Result<T, ReadError>, ArbiterError> {
        self.event_loop.run(async {
            let mut attempt = 0;
            loop {
                attempt += 1;
                let client = Client::new(&self.kubeconfig, self.namespace.as_deref(), &self.patience);
                let cluster = match self.cluster(&client).await? {
                    Ok(cluster) => cluster,
                    Err(error) => return Ok(Err(error)),
                };
                let store = KubernetesStore::new(client, &self.patience, cluster);
                let done = work(self.ledger.on(&store, &self.patience), &store).await;
                match store.other() {
                    Some(reached) if !self.begins_anew => return Err(self.is_of_another(reached)?),
                    Some(other) if attempt < LEDGERS => self.ledger.begin_anew(&self.known(other))?,
                    _ => return done.map(Ok),
                }
            }
        })
    }

    fn is_of_another(&self, reached: ClusterId) -> Result<ArbiterError, ArbiterError> {
        let known = self.ledger.store()?.map_or_else(String::new, |known| known.address.to_string());
        let path = self.ledger.path().to_owned();
        Ok(ArbiterError::OtherCluster {
            path,
            known,
            kubeconfig: self.kubeconfig.clone(),
            reached: reached.to_string(),
        })
    }

    /// A DEL may come without a configuration, and then goes where the last ADD went.
    fn remember_kubeconfig(&self) -> Result<(), ArbiterError> {
        let Some(known) = self.ledger.store()? else { return Ok(()) };
        let address = self.address();
        if *known.address != *address {
            self.ledger.set_store(&KnownStore { address: address.into(), ..known })?;
        }
        Ok(())
    }

    /// How the cluster is reached.
    fn address(&self) -> String {
        self.kubeconfig.display().to_string()
    }

    fn known(&self, cluster: ClusterId) -> KnownStore {
        KnownStore { identity: cluster.to_string().into(), address: self.address().into() }
    }

    /// The cluster that the ledger belongs to; for a new ledger the one that is reached.
    async fn cluster(&self, client: &Client<'_>) -> Result<Result<ClusterId, ReadError>, ArbiterError> {
        let known = self.ledger.store()?;
        if let Some(cluster) = known.as_ref().and_then(|known| ClusterId::parse(&known.identity)) {
            return Ok(Ok(cluster));
        }
        let cluster = match cluster_id(client).await {
            Ok(cluster) => cluster,
            Err(error) => return Ok(Err(error)),
        };
        self.ledger.set_store(&self.known(cluster))?;
        Ok(Ok(cluster))
    }
}
