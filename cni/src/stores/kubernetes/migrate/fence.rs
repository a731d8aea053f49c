//! The fence: nobody writes to the Go plugin's pools and reservations any more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use whereabouts_engine::Environment;

use super::super::KubernetesStore;
use super::super::client::{Call, Reply, Resource};
use super::MigrateError;

/// How the writes of the way back name themselves: the Go plugin's name themselves in no way, so they are turned away under
/// the same account, too.
pub(super) const WRITER: &str = "whereabouts-migrate";

/// How long an API server may take until a new policy counts. A second is usual.
const LONGEST_SPREAD: Duration = Duration::from_secs(60);

/// How long the pools may take until they are quiet. The longest call of the Go plugin takes two minutes.
const LONGEST_UNREST: Duration = Duration::from_secs(150);

/// How often something is looked at that is waited for.
const GLANCE: Duration = Duration::from_millis(500);

/// The lease by which the Go plugin's calls are leader; with slices there is one more for each node's pool.
const LEADER: &str = "whereabouts";

/// Whether the Go plugin is kept out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// It is.
    Raised,
    /// This API server has no policies of that kind.
    Unsupported,
}

/// Who may write behind the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exempt {
    /// Nobody.
    Nobody,
    /// This program, under the account that raises the fence.
    Ourselves,
}

/// The state of a leader's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leader {
    holder: String,
    acquired: String,
    renewed: String,
}

// === impl Leader ===

impl Leader {
    /// Whether somebody is leader still since then.
    fn is_still(&self, then: &Self) -> bool {
        !self.holder.is_empty() && self.holder == then.holder && self.acquired == then.acquired
    }
}

impl KubernetesStore<'_> {
    /// Denies writes to the Go plugin's objects in this namespace, and waits until the API server does. In place of one that
    /// is there, it leaves no gap.
    pub(super) async fn raise_fence(&self, exempt: Exempt) -> Result<Fence, MigrateError> {
        let expression = match exempt {
            Exempt::Nobody => "false".to_owned(),
            Exempt::Ourselves => match self.account().await? {
                Some(account) => exemption(&account),
                None => return Ok(Fence::Unsupported),
            },
        };
        let namespace = self.client.namespace().await.map_err(MigrateError::Refused)?;
        let name = fence_name(&namespace);
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": name },
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
                    "resourceRules": [{
                        "apiGroups": ["whereabouts.cni.cncf.io"], "apiVersions": ["*"],
                        "operations": ["CREATE", "UPDATE", "DELETE"],
                        "resources": ["ippools", "overlappingrangeipreservations"],
                    }],
                },
                "validations": [{
                    "expression": expression, "reason": "Forbidden",
                    "message": "the addresses are in IPSpaces and IPBlocks now (whereabouts migrate); \
                                `whereabouts migrate --unfence` takes this fence away",
                }],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": name }, "spec": { "policyName": name, "validationActions": ["Deny"] },
        });
        for (resource, object) in [(Resource::Policies, policy), (Resource::PolicyBindings, binding)] {
            if !self.put(resource, &name, object).await? {
                return Ok(Fence::Unsupported);
            }
        }
        self.wait_for_fence(&name).await?;
        Ok(Fence::Raised)
    }

    /// Takes the fence away; says whether there was one.
    pub(super) async fn lower_fence(&self) -> Result<bool, MigrateError> {
        let namespace = self.client.namespace().await.map_err(MigrateError::Refused)?;
        let name = fence_name(&namespace);
        let mut was_there = false;
        for resource in [Resource::PolicyBindings, Resource::Policies] {
            let reply = self.ask(Method::DELETE, resource, Some(&name), "", None).await?;
            match reply.status {
                StatusCode::NOT_FOUND => {}
                status if status.is_success() => was_there = true,
                _ => return Err(refused(resource, &name, &reply)),
            }
        }
        Ok(was_there)
    }

    /// Tries a write that would change nothing, until it is denied.
    async fn wait_for_fence(&self, name: &str) -> Result<(), MigrateError> {
        let probe = json!({
            "apiVersion": "whereabouts.cni.cncf.io/v1alpha1", "kind": "IPPool",
            "metadata": { "name": "whereabouts-migrate-probe" }, "spec": { "range": "192.0.2.0/24", "allocations": {} },
        });
        let started = Instant::now();
        loop {
            let reply = self.ask(Method::POST, Resource::GoPools, None, "dryRun=All", Some(&probe)).await?;
            if reply.status == StatusCode::FORBIDDEN && reply.status().message.contains(name) {
                return Ok(());
            }
            if !reply.status.is_success() {
                let reason = format!("whether the fence holds cannot be tried: {}", reply.reason());
                return Err(MigrateError::Refused(reason));
            }
            if started.elapsed() > LONGEST_SPREAD {
                let reason = format!(
                    "the policy {name} is there and the API server does not keep to it after {} s; see its status with \
                     `kubectl get validatingadmissionpolicy {name} -o yaml`",
                    LONGEST_SPREAD.as_secs()
                );
                return Err(MigrateError::Refused(reason));
            }
            self.patience.pause(GLANCE).await;
        }
    }

    /// Who this is to the API server; `None` where it cannot say, being older than its policies.
    async fn account(&self) -> Result<Option<String>, MigrateError> {
        let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
        let reply = self.ask(Method::POST, Resource::SelfReviews, None, "", Some(&review)).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        match answer.pointer("/status/userInfo/username").and_then(Value::as_str) {
            Some(account) if reply.status.is_success() => Ok(Some(account.to_owned())),
            _ => Err(MigrateError::Refused(format!("who this is cannot be asked: {}", reply.reason()))),
        }
    }

    /// Writes behind the fence; says whether it was done. Where it was not, somebody else has written, and what is to be
    /// done must be thought about again.
    pub(super) async fn write_behind_fence(
        &self,
        (method, resource, name): (Method, Resource, &str),
        body: &Value,
    ) -> Result<bool, MigrateError> {
        let namespace = self.client.namespace().await.map_err(MigrateError::Refused)?;
        let fence = fence_name(&namespace);
        let in_path = (method != Method::POST).then_some(name);
        let query = if method == Method::DELETE { String::new() } else { format!("fieldManager={WRITER}") };
        let started = Instant::now();
        loop {
            let reply = self.ask(method.clone(), resource, in_path, &query, Some(body)).await?;
            match reply.status {
                status if status.is_success() => return Ok(true),
                StatusCode::CONFLICT => return Ok(false),
                StatusCode::NOT_FOUND if reply.status().details.is_some_and(|details| details.name == name) => {
                    return Ok(false);
                }
                // The API server still goes by the fence that was here before.
                StatusCode::FORBIDDEN
                    if reply.status().message.contains(&fence) && started.elapsed() < LONGEST_SPREAD => {}
                _ => return Err(refused(resource, name, &reply)),
            }
            self.patience.pause(GLANCE).await;
        }
    }

    /// Waits until nothing has changed in the Go plugin's objects for so long, and nobody is leader any more who was when
    /// the fence was raised: whoever became leader since is turned away.
    pub(super) async fn wait_until_quiet(&self, quiet: Duration) -> Result<(), MigrateError> {
        let leaders = self.leaders().await?;
        let started = Instant::now();
        let mut last = self.versions().await?;
        let mut now = leaders.clone();
        let mut changed = Instant::now();
        loop {
            if changed.elapsed() >= quiet {
                return Ok(());
            }
            self.patience.pause(GLANCE.min(quiet)).await;
            let (versions, seen) = (self.versions().await?, self.leaders().await?);
            let moved = versions.iter().find(|(name, version)| last.get(*name) != Some(version)).map(|(name, _)| name);
            let moved = moved.or_else(|| last.keys().find(|name| !versions.contains_key(*name))).cloned();
            let renewed = seen.iter().find(|(name, leader)| {
                leaders.get(*name).is_some_and(|then| leader.is_still(then)) && now.get(*name) != Some(leader)
            });
            let unrest = moved.or_else(|| {
                renewed.map(|(name, leader)| format!("leases.coordination.k8s.io/{name} (held by {})", leader.holder))
            });
            if let Some(unrest) = unrest {
                changed = Instant::now();
                if started.elapsed() > LONGEST_UNREST || self.patience.is_past_deadline() {
                    return Err(MigrateError::Restless(unrest));
                }
            }
            (last, now) = (versions, seen);
        }
    }

    /// The versions of all of the Go plugin's objects that the fence is for.
    async fn versions(&self) -> Result<BTreeMap<String, String>, MigrateError> {
        let pools = self.go_pools().await?.into_iter().map(|pool| (Resource::GoPools, pool.name, pool.version));
        let reservations = self.go_reservations().await?;
        let reservations = reservations.into_iter().map(|one| (Resource::GoReservations, one.name, one.version));
        let named = |(resource, name, version): (Resource, String, String)| {
            (super::super::object_name(resource, &name), version)
        };
        Ok(pools.chain(reservations).map(named).collect())
    }

    async fn leaders(&self) -> Result<BTreeMap<String, Leader>, MigrateError> {
        let pools: Vec<String> = self.go_pools().await?.into_iter().map(|pool| pool.name).collect();
        let read = |lease: Value| {
            let text = |pointer: &str| lease.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let name = text("/metadata/name");
            let leader = Leader {
                holder: text("/spec/holderIdentity"),
                acquired: text("/spec/acquireTime"),
                renewed: text("/spec/renewTime"),
            };
            (name == LEADER || pools.contains(&name)).then_some((name, leader))
        };
        let leases = self.all_if_defined(Resource::Leases, "", read).await?;
        Ok(leases.unwrap_or_default().into_iter().collect())
    }

    /// Makes an object, or puts this one in place of what is there; says whether the API server knows its kind.
    pub(super) async fn put(&self, resource: Resource, name: &str, mut object: Value) -> Result<bool, MigrateError> {
        loop {
            let there = self.ask(Method::GET, resource, Some(name), "", None).await?;
            let reply = if there.status.is_success() {
                let there: Value = serde_json::from_slice(&there.body).unwrap_or_default();
                let version = there.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
                if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
                    metadata.insert("resourceVersion".to_owned(), version);
                }
                self.ask(Method::PUT, resource, Some(name), "", Some(&object)).await?
            } else if there.status == StatusCode::NOT_FOUND {
                if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
                    metadata.remove("resourceVersion");
                }
                self.ask(Method::POST, resource, None, "", Some(&object)).await?
            } else {
                return Err(refused(resource, name, &there));
            };
            match reply.status {
                status if status.is_success() => return Ok(true),
                // Nothing of that kind can be made.
                StatusCode::NOT_FOUND if reply.status().details.is_none_or(|details| details.name != name) => {
                    return Ok(false);
                }
                StatusCode::CONFLICT | StatusCode::NOT_FOUND if !self.patience.is_past_deadline() => {}
                _ => return Err(refused(resource, name, &reply)),
            }
            self.patience.pause(GLANCE).await;
        }
    }

    /// Sends what does no harm when it is repeated, until it is answered for good or time is up.
    pub(super) async fn ask(
        &self,
        method: Method,
        resource: Resource,
        name: Option<&str>,
        query: &str,
        body: Option<&Value>,
    ) -> Result<Reply, MigrateError> {
        let body = body.map(|body| body.to_string().into_bytes());
        let reply = self.client.read(&Call { method, resource, name, query, body }).await;
        reply.map_err(MigrateError::Refused)
    }
}

/// What the policy says of a write by ourselves. A deletion has no room for our name, but we say which version is meant.
fn exemption(account: &str) -> String {
    // JSON writes a text as CEL does.
    let (account, writer) = (json!(account), json!(WRITER));
    format!(
        "request.userInfo.username == {account} && (request.operation == 'DELETE' \
         ? has(request.options.preconditions) && has(request.options.preconditions.resourceVersion) \
         : has(request.options.fieldManager) && request.options.fieldManager == {writer})"
    )
}

/// The name of the policy and of its binding.
fn fence_name(namespace: &str) -> String {
    format!("whereabouts-migrate-{namespace}")
}

pub(super) fn refused(resource: Resource, name: &str, reply: &Reply) -> MigrateError {
    let cure = match reply.status {
        StatusCode::FORBIDDEN => "; grant the rights in deploy/kubernetes/migrate-rbac.yaml",
        _ => "",
    };
    MigrateError::Refused(format!("{}: {}{cure}", super::super::object_name(resource, name), reply.reason()))
}
