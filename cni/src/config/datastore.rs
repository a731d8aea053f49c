//! Where leases are kept.

use super::network::one_of;
use super::raw::RawIpam;
use super::{ConfigurationError, Secret, Warning};

/// Where leases are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datastore {
    /// In the ledger of this host.
    Local,
    /// In the API server of a Kubernetes cluster.
    Kubernetes {
        /// Path of the kubeconfig.
        kubeconfig: String,
    },
    /// In etcd.
    Etcd(Etcd),
}

/// How to reach etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// `host:port`, or several with commas between them.
    pub host: String,
    /// The user, if etcd asks for one.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// Path of the client key, PEM.
    pub key_file: Option<String>,
    /// Path of the client certificate, PEM.
    pub cert_file: Option<String>,
    /// Path of the certificate authority, PEM.
    pub ca_cert_file: Option<String>,
}

/// Why it is this datastore and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatastoreOrigin {
    /// The key `datastore` says so.
    Explicit,
    /// It is the one that is configured.
    Derived,
    /// Nothing is configured, and this is the default.
    Default,
}

#[derive(Clone, Copy)]
enum Kind {
    Local,
    Kubernetes,
    Etcd,
}

// === impl Datastore ===

impl Datastore {
    /// An explicit `datastore` decides; without it whichever is configured, the kubeconfig before etcd as in the Go
    /// plugin; with neither, this host.
    pub(crate) fn resolve(
        raw: &RawIpam,
        warnings: &mut Vec<Warning>,
    ) -> Result<(Self, DatastoreOrigin), ConfigurationError> {
        let kubeconfig = raw.kubeconfig.as_deref().unwrap_or_default();
        let etcd_host = raw.etcd_host.as_deref().unwrap_or_default();
        let explicit = raw.datastore.as_deref().filter(|typed| !typed.is_empty());
        let known = [("local", Kind::Local), ("kubernetes", Kind::Kubernetes), ("etcd", Kind::Etcd)];
        let (kind, origin) = match explicit {
            Some(typed) => (one_of("datastore", typed, &known)?, DatastoreOrigin::Explicit),
            None if !kubeconfig.is_empty() => (Kind::Kubernetes, DatastoreOrigin::Derived),
            None if !etcd_host.is_empty() => (Kind::Etcd, DatastoreOrigin::Derived),
            None => (Kind::Local, DatastoreOrigin::Default),
        };
        if explicit.is_none() && !kubeconfig.is_empty() && !etcd_host.is_empty() {
            let text = "has no effect, because kubernetes.kubeconfig is set as well; set datastore to choose one";
            warnings.push(Warning::new("etcd_host", etcd_host, text));
        }
        let datastore = match kind {
            Kind::Local => Self::Local,
            Kind::Kubernetes if kubeconfig.is_empty() => {
                let problem = "kubernetes.kubeconfig is not set (invalid `kubernetes.kubeconfig` parameter)";
                let cure = "set kubernetes.kubeconfig to the path of a kubeconfig";
                return Err(ConfigurationError::value("datastore", "kubernetes", problem, cure));
            }
            Kind::Kubernetes => Self::Kubernetes { kubeconfig: kubeconfig.to_owned() },
            Kind::Etcd if etcd_host.is_empty() => {
                let cure = "set etcd_host to host:port";
                return Err(ConfigurationError::value("datastore", "etcd", "etcd_host is not set", cure));
            }
            Kind::Etcd => Self::Etcd(Etcd::resolve(raw, etcd_host)?),
        };
        Ok((datastore, origin))
    }

    /// The word for it, as in the configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Kubernetes { .. } => "kubernetes",
            Self::Etcd(_) => "etcd",
        }
    }

    /// The one place that says which datastores this build can use.
    pub(crate) fn require_available(&self, origin: DatastoreOrigin) -> Result<(), ConfigurationError> {
        let key = match self {
            Self::Local | Self::Kubernetes { .. } => return Ok(()),
            Self::Etcd(_) => "etcd_host",
        };
        let reason = if origin == DatastoreOrigin::Explicit { "the key datastore" } else { key };
        Err(ConfigurationError::DatastoreNotAvailable { value: self.name(), reason })
    }
}

// === impl Etcd ===

impl Etcd {
    fn resolve(raw: &RawIpam, host: &str) -> Result<Self, ConfigurationError> {
        let some = |typed: &Option<String>| typed.clone().filter(|text| !text.is_empty());
        let etcd = Self {
            host: host.to_owned(),
            username: some(&raw.etcd_username),
            password: raw.etcd_password.clone().filter(|password| !password.reveal().is_empty()),
            key_file: some(&raw.etcd_key_file),
            cert_file: some(&raw.etcd_cert_file),
            ca_cert_file: some(&raw.etcd_ca_cert_file),
        };
        for (has, key, file, other) in [
            (etcd.key_file.is_some(), "etcd_key_file", &etcd.key_file, etcd.cert_file.is_some()),
            (etcd.cert_file.is_some(), "etcd_cert_file", &etcd.cert_file, etcd.key_file.is_some()),
        ] {
            if has && !other {
                let cure = "set both etcd_key_file and etcd_cert_file, or neither";
                let file = file.as_deref().unwrap_or_default();
                return Err(ConfigurationError::value(key, file, "a key and a certificate belong together", cure));
            }
        }
        if etcd.password.is_some() && etcd.username.is_none() {
            let cure = "set etcd_username as well";
            return Err(ConfigurationError::value("etcd_password", "…", "a password without a user", cure));
        }
        Ok(etcd)
    }
}
