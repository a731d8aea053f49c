//! Who decides about addresses: the ledger of this host, or a cluster with a ledger of this host beside it.

pub mod kubernetes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use whereabouts_engine::{
    Access, Address, Allocate, AllocateError, Allocated, Attachment, Check, CheckError, Collect, Create, Lease, Ledger,
    LedgerError, LedgerFile, LedgerFileError, OpenOptions, ReadError, Release, ReleaseError, Released, StorageError,
    SurveyError, Want,
};

use self::kubernetes::KubernetesHost;
use crate::config::{Datastore, HostSettings};
use crate::host::{self, ADD_DEADLINE, Caller, DEL_DEADLINE};

/// Who decides about addresses.
#[derive(Debug)]
pub enum Arbiter {
    /// The ledger of this host.
    Local(Ledger),
    /// A Kubernetes cluster.
    Kubernetes(Box<KubernetesHost>),
}

/// Why nobody decided.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArbiterError {
    /// The ledger of this host cannot be used. Nothing was changed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The cluster cannot be read.
    #[error(transparent)]
    Store(#[from] ReadError),
    /// The ledger of a cluster was begun, perhaps in place of one that is lost, and has not learned from the cluster since.
    #[error(
        "ledger {} is new, and does not know yet what this node holds; a call that names its cluster looks there",
        path.display()
    )]
    New {
        /// The ledger.
        path: PathBuf,
    },
    /// A person names another cluster than the one that the plugin on this host works with.
    #[error(
        "{} is the ledger of another cluster (that of {known}) than {} reaches ({reached}), and the plugin on this host \
         works with it; name a folder of your own with --data-dir to work with this one",
        path.display(), kubeconfig.display()
    )]
    OtherCluster {
        /// The ledger of this host.
        path: PathBuf,
        /// How its cluster was reached last.
        known: String,
        /// What the person named.
        kubeconfig: PathBuf,
        /// What tells the cluster that was reached from every other one.
        reached: String,
    },
    /// The operating system has no event loop for this process.
    #[error("no event loop can be had: {0}; see the limits of this process")]
    Runtime(std::io::Error),
}

/// What a call is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Assign addresses: a ledger is made if there is none, and a cluster is waited for until the deadline.
    Assign,
    /// See whether addresses could be assigned: as [`Purpose::Look`], but a ledger is made if there is none, and a cluster
    /// is not asked.
    Prepare,
    /// Look at what is assigned: the ledger of this host is only read, and without one there is nothing.
    Look,
    /// Free addresses: without a ledger there is nothing to free, and a cluster that is silent is not waited for.
    Free,
}

/// The ledger of a host whose addresses a Kubernetes cluster decides. It is another file than the local one: what the
/// two say of the same address has nothing to do with each other.
#[must_use]
pub fn kubernetes_ledger_path(data_dir: &Path) -> PathBuf {
    data_dir.join("kubernetes.redb")
}

/// The ledger that a datastore uses on this host.
#[must_use]
pub fn ledger_path(settings: &HostSettings, datastore: &Datastore) -> PathBuf {
    match datastore {
        Datastore::Kubernetes { .. } => kubernetes_ledger_path(&settings.data_dir),
        Datastore::Local | Datastore::Etcd(_) => host::ledger_path(&settings.data_dir),
    }
}

// === impl ArbiterError ===

impl ArbiterError {
    /// Whether there is no ledger.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(
            self,
            Self::Ledger(
                LedgerError::File(LedgerFileError::Missing { .. })
                    | LedgerError::Storage(StorageError::File { is_missing: true, .. })
            )
        )
    }

    /// Whether there was a ledger that is gone, or may have been one of which nothing is known.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::New { .. } | Self::Ledger(LedgerError::File(LedgerFileError::Lost { .. })))
    }
}

impl From<StorageError> for ArbiterError {
    fn from(error: StorageError) -> Self {
        Self::Ledger(error.into())
    }
}

impl From<SurveyError> for ArbiterError {
    fn from(error: SurveyError) -> Self {
        match error {
            SurveyError::Store(error) => Self::Store(error),
            SurveyError::Ledger(error) => Self::Ledger(error),
        }
    }
}

// === impl Arbiter ===

impl Arbiter {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// [`ArbiterError`] names the file and the cure.
    pub fn open(settings: &HostSettings, datastore: &Datastore, purpose: Purpose) -> Result<Self, ArbiterError> {
        match datastore {
            Datastore::Kubernetes { kubeconfig } => {
                Self::open_kubernetes(settings, Path::new(kubeconfig), purpose).map(Box::new).map(Self::Kubernetes)
            }
            // etcd is turned away before.
            Datastore::Local | Datastore::Etcd(_) => Ok(Self::Local(match purpose {
                Purpose::Free => host::open_existing(settings, Caller::Runtime)?,
                Purpose::Look => host::open_to_look(settings)?,
                Purpose::Prepare => match host::open_to_look(settings) {
                    Err(LedgerError::File(LedgerFileError::Missing { .. })) => host::open(settings, Caller::Runtime)?,
                    opened => opened?,
                },
                Purpose::Assign => host::open(settings, Caller::Runtime)?,
            })),
        }
    }

    /// Opens the ledger of a host whose addresses a cluster decides.
    ///
    /// # Errors
    /// [`ArbiterError`] names the file and the cure.
    pub fn open_kubernetes(
        settings: &HostSettings,
        kubeconfig: &Path,
        purpose: Purpose,
    ) -> Result<KubernetesHost, ArbiterError> {
        let usual = if purpose == Purpose::Assign { ADD_DEADLINE } else { DEL_DEADLINE };
        let patience = settings.deadline.unwrap_or(usual);
        let silence = if purpose == Purpose::Assign { Duration::MAX } else { kubernetes::SILENCE };
        let mut options = OpenOptions::new(kubernetes_ledger_path(&settings.data_dir));
        options.wait = patience;
        options.create = Create::IfMissing;
        KubernetesHost::open(options, host::facts_of(settings, Caller::Runtime), kubeconfig, patience, silence)
    }

    /// The datastore that the configuration does not name: what was added while it did is in the ledger of that one, if
    /// that is here.
    ///
    /// # Errors
    /// [`ArbiterError`] names the file and the cure.
    pub fn former_datastore(settings: &HostSettings, datastore: &Datastore) -> Result<Option<Datastore>, ArbiterError> {
        if matches!(datastore, Datastore::Kubernetes { .. }) {
            return Ok(Some(Datastore::Local));
        }
        // The configuration may name none because the runtime has lost it: the ledger knows its cluster. Where that is
        // lost, too, or was begun anew, there was one, and what is to be freed there must wait until a call names it.
        let path = kubernetes_ledger_path(&settings.data_dir);
        if !path.exists() {
            let mut options = OpenOptions::new(path);
            (options.create, options.access, options.wait) = (Create::Never, Access::Read, Duration::ZERO);
            return match LedgerFile::open(&options) {
                Err(error @ LedgerFileError::Lost { .. }) => Err(LedgerError::File(error).into()),
                _ => Ok(None),
            };
        }
        let host = Self::open_kubernetes(settings, Path::new(""), Purpose::Free)?;
        match host.known_kubeconfig()? {
            Some(known) => Ok(Some(Datastore::Kubernetes { kubeconfig: known.display().to_string() })),
            None => Err(ArbiterError::New { path }),
        }
    }

    /// Assigns addresses to one attachment by whoever the configuration names.
    ///
    /// # Errors
    /// [`ArbiterError`] when the ledger cannot be used; then nothing was assigned.
    pub fn allocate_one(
        settings: &HostSettings,
        datastore: &Datastore,
        request: &Allocate,
    ) -> Result<Result<Vec<Allocated>, AllocateError>, ArbiterError> {
        match datastore {
            Datastore::Kubernetes { kubeconfig } => {
                let host = Self::open_kubernetes(settings, Path::new(kubeconfig), Purpose::Assign)?;
                host.allocate(request)
            }
            Datastore::Local | Datastore::Etcd(_) => Ok(host::allocate(settings, request)?),
        }
    }

    /// Frees what each request names, or queues it. The answers are in the order of the requests.
    ///
    /// # Errors
    /// [`ArbiterError`] when the ledger cannot be used; then nothing was freed or queued.
    pub fn release(&self, requests: &[Release]) -> Result<Vec<Result<Released, ReleaseError>>, ArbiterError> {
        match self {
            Self::Local(ledger) => Ok(ledger.release(requests)?),
            Self::Kubernetes(host) => host.release(requests),
        }
    }

    /// Checks that attachments hold what they should. The answers are in the order of the requests.
    ///
    /// # Errors
    /// [`ArbiterError`] when the ledger cannot be used.
    pub fn check(&self, requests: &[Check]) -> Result<Vec<Result<(), CheckError>>, ArbiterError> {
        match self {
            Self::Local(ledger) => Ok(ledger.check(requests)?),
            Self::Kubernetes(host) => host.check(requests),
        }
    }

    /// Frees what this host recorded for a CNI network and the runtime no longer lists.
    ///
    /// # Errors
    /// [`ArbiterError`] when the ledger, or the cluster, cannot be used.
    pub fn collect(&self, list: &Collect) -> Result<Vec<Result<Released, ReleaseError>>, ArbiterError> {
        match self {
            Self::Local(ledger) => Ok(ledger.collect(list)?),
            Self::Kubernetes(host) => host.collect(list),
        }
    }

    /// Says for each want whether an allocation would find an address, as far as this host can tell by itself: a cluster
    /// is not asked, for a STATUS comes every few seconds from every node.
    ///
    /// # Errors
    /// [`ArbiterError`] when the ledger cannot be used.
    pub fn has_room(&self, wants: &[Want]) -> Result<Vec<Result<(), AllocateError>>, ArbiterError> {
        match self {
            Self::Local(ledger) => {
                ledger.file().may_be_written().map_err(LedgerError::from)?;
                Ok(ledger.has_room(wants)?)
            }
            Self::Kubernetes(host) => host.has_room(wants),
        }
    }

    /// What an attachment holds, as the ledger of this host knows it.
    ///
    /// # Errors
    /// [`ArbiterError`] when the ledger cannot be read.
    pub fn leases_of(&self, attachment: &Attachment) -> Result<Vec<(Address, Lease)>, ArbiterError> {
        match self {
            Self::Local(ledger) => {
                let mut leases = Vec::new();
                for address in ledger.held_by(attachment)? {
                    let holdings = ledger.who(address)?.into_iter();
                    let own = holdings.filter(|holding| holding.lease.attachment == *attachment);
                    leases.extend(own.map(|holding| (address, holding.lease)));
                }
                Ok(leases)
            }
            Self::Kubernetes(host) => host.leases_of(attachment),
        }
    }
}
