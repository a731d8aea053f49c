//! The API server of a Kubernetes cluster as a store.
//!
//! What it promises is in `outcomes.rs`; how objects look in `objects.rs`. Nothing here decides who gets an address.

pub mod base85;
mod client;
mod cluster;
mod data;
mod go_plugin;
mod migrate;
mod names;
mod objects;
mod outcomes;
mod patience;
mod reading;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use http::{Method, StatusCode};
use kube::CustomResourceExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use whereabouts_engine::{
    Block, BlockId, BlockNumber, Environment, HANDED_OVER, Index, Listed, Object, Outcome, Promises, ReadError, Space,
    Store, Stored, Swap,
};

pub use self::cluster::{Frozen, KubernetesHost, Opened, RESTORED, SILENCE};
pub use self::migrate::{Exempt, Fate, Fence, Finding, Freed, MigrateError, Plan, PlannedPool, ReturnedPool, WayBack};
pub use self::objects::{IPBlock, IPBlockSpec, IPSpace, IPSpaceSpec};
pub use self::reading::read_object;

use self::client::{Call, Client, Reply, Resource};
use self::data::ClusterId;
use self::objects::FamilyName;
use self::patience::Patience;
use self::reading::{Got, object_name, unsound};

/// The label that names the space of a block.
const SPACE_LABEL: &str = "ipam.whereabouts.dev/space";

/// How many objects a page of a list has.
const PAGE: usize = 500;

/// The definitions of both custom resources, in YAML.
///
/// # Errors
/// None, unless the definitions have become something that YAML cannot say.
pub fn definitions() -> Result<String, serde_yaml_ng::Error> {
    let mut text =
        "# Written by `cargo run -p whereabouts --example crds`; a test says when it is out of date.\n".to_owned();
    for mut definition in [IPSpace::crd(), IPBlock::crd()] {
        // Who packs them into a chart must not delete all leases when the chart is taken away.
        let keep = ("helm.sh/resource-policy".to_owned(), "keep".to_owned());
        definition.metadata.annotations.get_or_insert_default().extend([keep]);
        text.push_str("---\n");
        text.push_str(&serde_yaml_ng::to_string(&definition)?);
    }
    Ok(text)
}

/// Blocks and indexes as custom resources.
#[derive(Debug)]
struct KubernetesStore<'a> {
    client: Client<'a>,
    patience: &'a Patience,
    /// The cluster that this host's ledger belongs to.
    cluster: ClusterId,
    is_confirmed: Cell<bool>,
    /// The cluster that was reached, when it was another one.
    other: RefCell<Option<ClusterId>>,
}

#[derive(Debug, Deserialize)]
struct Page {
    metadata: PageMetadata,
    items: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PageMetadata {
    r#continue: String,
}

/// The UID of a cluster's namespace `kube-system`.
async fn cluster_id(client: &Client<'_>) -> Result<ClusterId, ReadError> {
    let resource = Resource::ClusterNamespace;
    let reply = client.read(&get(resource, Some("kube-system"), "")).await.map_err(unavailable)?;
    if !reply.status.is_success() {
        return Err(turned_away(resource, &reply));
    }
    let namespace: Result<Got<Value>, _> = serde_json::from_slice(&reply.body);
    let id = namespace.ok().and_then(|namespace| ClusterId::parse(&namespace.metadata.uid));
    id.ok_or_else(|| unavailable("the namespace kube-system has no UID that can be read".to_owned()))
}

fn get<'a>(resource: Resource, name: Option<&'a str>, query: &'a str) -> Call<'a> {
    Call { method: Method::GET, resource, name, query, body: None }
}

fn unavailable(reason: String) -> ReadError {
    ReadError::Unavailable { reason }
}

fn undefined(resource: Resource) -> String {
    format!(
        "the API server has no {}; apply the definitions in deploy/kubernetes/crds.yaml (where they were there before, \
         deploy/README.md says what to do first)",
        resource.plural()
    )
}

/// A read that was answered, but not with what was asked for.
fn turned_away(resource: Resource, reply: &Reply) -> ReadError {
    let reason = match reply.status {
        StatusCode::NOT_FOUND => undefined(resource),
        StatusCode::FORBIDDEN if resource == Resource::Nodes => {
            format!("{}; use the kubeconfig of an administrator", reply.reason())
        }
        StatusCode::FORBIDDEN => format!("{}; {}", reply.reason(), outcomes::GRANT),
        _ => reply.reason(),
    };
    ReadError::Rejected { reason }
}

// === impl KubernetesStore ===

impl<'a> KubernetesStore<'a> {
    fn new(client: Client<'a>, patience: &'a Patience, cluster: ClusterId) -> Self {
        Self { client, patience, cluster, is_confirmed: Cell::new(false), other: RefCell::new(None) }
    }

    /// The cluster that was reached, when it is not the one that the ledger belongs to.
    fn other(&self) -> Option<ClusterId> {
        *self.other.borrow()
    }

    /// Reads one object; `None` where there is none.
    async fn object<S: DeserializeOwned>(&self, resource: Resource, name: &str) -> Result<Option<Got<S>>, ReadError> {
        let reply = self.client.read(&get(resource, Some(name), "")).await.map_err(unavailable)?;
        if reply.status == StatusCode::NOT_FOUND {
            // For a resource that is not defined, the answer is a page that names nothing.
            let is_absent = reply.status().details.is_some_and(|details| details.name == name);
            return if is_absent { Ok(None) } else { Err(turned_away(resource, &reply)) };
        }
        if !reply.status.is_success() {
            return Err(turned_away(resource, &reply));
        }
        let got: Got<S> = serde_json::from_slice(&reply.body)
            .map_err(|error| unsound(resource, name, format!("it is not of this form: {error}")))?;
        Ok(Some(got))
    }

    /// Reads all objects of a kind.
    async fn all(&self, resource: Resource, selector: &str) -> Result<Vec<Value>, ReadError> {
        let items = self.all_if_defined(resource, selector, Some).await?;
        items.ok_or_else(|| ReadError::Rejected { reason: undefined(resource) })
    }

    /// Reads all objects of a kind, page by page, and keeps what is made of each; `None` where the kind is not defined.
    async fn all_if_defined<T>(
        &self,
        resource: Resource,
        selector: &str,
        keep: impl Fn(Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, ReadError> {
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let query = format!("limit={PAGE}{selector}{next}");
            let reply = self.client.read(&get(resource, None, &query)).await.map_err(unavailable)?;
            // The list has grown too old while it was read.
            if reply.status == StatusCode::GONE && !next.is_empty() {
                items.clear();
                next.clear();
                continue;
            }
            if reply.status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            if !reply.status.is_success() {
                return Err(turned_away(resource, &reply));
            }
            let page: Page = serde_json::from_slice(&reply.body)
                .map_err(|error| unavailable(format!("the list of {} cannot be read: {error}", resource.plural())))?;
            items.extend(page.items.into_iter().filter_map(&keep));
            if page.metadata.r#continue.is_empty() {
                return Ok(Some(items));
            }
            next = format!("&continue={}", page.metadata.r#continue);
        }
    }

    /// The names of the cluster's nodes.
    async fn nodes(&self) -> Result<BTreeSet<String>, ReadError> {
        let name = |node: Value| Some(node.pointer("/metadata/name")?.as_str()?.to_owned());
        Ok(self.all(Resource::Nodes, "").await?.into_iter().filter_map(name).collect())
    }

    /// The objects of spaces whose leases went back to the Go plugin. What they show is enough for this: one that cannot
    /// be read must not keep others from beginning.
    async fn handed_over(&self) -> Result<Vec<String>, ReadError> {
        let text = |item: &Value, pointer: &str| item.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let is_it = |item: &Value| text(item, "/spec/frozen").is_some_and(|reason| reason == HANDED_OVER);
        let name = |item: Value| text(&item, "/metadata/name").filter(|_| is_it(&item));
        Ok(self.all(Resource::Spaces, "").await?.into_iter().filter_map(name).collect())
    }

    /// Foreign, an object was copied here; or it is the whole cluster that is another one than the ledger's, which must be
    /// known before anything is made of it.
    async fn judged<T>(&self, read: Result<T, ReadError>) -> Result<T, ReadError> {
        if matches!(read, Err(ReadError::Foreign { .. }))
            && let Err(error) = self.confirm().await
        {
            tracing::warn!(%error, "an object of another cluster");
        }
        read
    }

    /// The object that is put in place of a version.
    fn body(&self, swap: &Swap, name: &str) -> Result<Vec<u8>, String> {
        let mut metadata = serde_json::Map::from_iter([("name".to_owned(), json!(name))]);
        if !swap.expected.is_absent() {
            let (resource_version, uid) = outcomes::parts(&swap.expected);
            metadata.insert("resourceVersion".to_owned(), json!(resource_version));
            metadata.insert("uid".to_owned(), json!(uid));
            // Who changed which field is always the same, and would make up half of the object.
            metadata.insert("managedFields".to_owned(), json!([{}]));
        }
        let (kind, spec) = match &swap.object {
            Object::Block(id, block) => {
                let labels = json!({ SPACE_LABEL: names::label_of_space(&id.space) });
                metadata.insert("labels".to_owned(), labels);
                let record = block.to_record(id).map_err(|error| error.to_string())?;
                let spec = IPBlockSpec::new(id, block, data::write(self.cluster, &record)?);
                ("IPBlock", serde_json::to_value(spec))
            }
            Object::Index(space, index) => {
                let record = index.to_record(space).map_err(|error| error.to_string())?;
                let spec = IPSpaceSpec::new(space, index, data::write(self.cluster, &record)?);
                ("IPSpace", serde_json::to_value(spec))
            }
        };
        let spec = spec.map_err(|error| error.to_string())?;
        let api_version = format!("{}/v1alpha1", objects::GROUP);
        let object = json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec });
        serde_json::to_vec(&object).map_err(|error| error.to_string())
    }

    async fn swap_one(&self, swap: Swap) -> Outcome {
        let unknown = |reason: String| Outcome::Unknown { reason };
        let is_new = swap.expected.is_absent();
        // What is made is made for the cluster that this ledger belongs to.
        if is_new && let Err(error) = self.confirm().await {
            return unknown(error.to_string());
        }
        let (resource, name) = match &swap.object {
            Object::Block(id, _) => (Resource::Blocks, names::of_block(id)),
            Object::Index(space, _) => (Resource::Spaces, names::of_space(space)),
        };
        let body = match self.body(&swap, &name) {
            Ok(body) => body,
            Err(reason) => return unknown(format!("{} cannot be written: {reason}", swap.object)),
        };
        let method = if is_new { Method::POST } else { Method::PUT };
        let name_in_path = (!is_new).then_some(name.as_str());
        // Deleted behind its client's back, an object must not come back by a PUT: the UID that goes with it says so.
        let call = Call { method, resource, name: name_in_path, query: "", body: Some(body) };
        let reply = self.client.send(&call).await;
        if let Ok(reply) = &reply {
            if reply.status.is_client_error() && reply.status != StatusCode::CONFLICT {
                tracing::warn!(
                    reason = reply.reason(),
                    object = object_name(resource, &name),
                    "a write was turned away"
                );
            }
            if let Some(wait) = reply.retry_after {
                self.patience.pause(wait).await;
            }
        }
        outcomes::of_write(reply)
    }
}

impl Store for KubernetesStore<'_> {
    fn promises(&self) -> Promises {
        Promises { several_at_once: false, one_transaction_with_journal: false }
    }

    async fn read_index(&self, space: &Space) -> Result<Option<Stored<Index>>, ReadError> {
        let name = names::of_space(space);
        let got = self.object::<IPSpaceSpec>(Resource::Spaces, &name).await?;
        self.judged(got.map(|got| reading::index(self.cluster, space, got)).transpose()).await
    }

    async fn read_block(&self, block: &BlockId) -> Result<Option<Stored<Block>>, ReadError> {
        let got = self.object::<IPBlockSpec>(Resource::Blocks, &names::of_block(block)).await?;
        self.judged(got.map(|got| reading::block(self.cluster, block, got)).transpose()).await
    }

    async fn swap(&self, swaps: Vec<Swap>) -> Vec<Outcome> {
        // One after the other on one connection: a second one would cost more than it saves.
        let mut outcomes = Vec::with_capacity(swaps.len());
        for swap in swaps {
            outcomes.push(self.swap_one(swap).await);
        }
        outcomes
    }

    async fn list_blocks(&self, space: &Space) -> Result<Vec<Listed<BlockNumber, Block>>, ReadError> {
        let selector = format!("&labelSelector={SPACE_LABEL}%3D{}", names::label_of_space(space));
        let mut blocks: Vec<Listed<BlockNumber, Block>> = Vec::new();
        for item in self.all(Resource::Blocks, &selector).await? {
            let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
            // What does not even say which block it is cannot be put in its place.
            let wrong = |reason: String| unsound(Resource::Blocks, &name, reason);
            let got: Got<IPBlockSpec> = serde_json::from_value(item).map_err(|error| wrong(error.to_string()))?;
            let id = got.spec.id().map_err(wrong)?;
            if id.space != *space {
                return Err(wrong(format!("it says to be block {id}, and its label names {space}")));
            }
            blocks.push((id.number, reading::block(self.cluster, &id, got)));
        }
        blocks.sort_by_key(|(number, _)| *number);
        Ok(blocks)
    }

    async fn list_indexes(&self) -> Result<Vec<Listed<Space, Index>>, ReadError> {
        let mut indexes: Vec<Listed<Space, Index>> = Vec::new();
        for item in self.all(Resource::Spaces, "").await? {
            let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let wrong = |reason: String| unsound(Resource::Spaces, &name, reason);
            let got: Got<IPSpaceSpec> = serde_json::from_value(item).map_err(|error| wrong(error.to_string()))?;
            let space = got.spec.space().map_err(wrong)?;
            let read = self.judged(reading::index(self.cluster, &space, got)).await;
            indexes.push((space, read));
        }
        indexes.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(indexes)
    }

    async fn confirm(&self) -> Result<(), ReadError> {
        if self.is_confirmed.get() {
            return Ok(());
        }
        let reached = cluster_id(&self.client).await?;
        if reached != self.cluster {
            self.other.replace(Some(reached));
            return Err(unavailable(format!(
                "the ledger of this host belongs to the cluster {}, and the kubeconfig leads to {reached}",
                self.cluster
            )));
        }
        self.is_confirmed.set(true);
        Ok(())
    }
}

// === impl IPBlockSpec ===

impl IPBlockSpec {
    fn new(id: &BlockId, block: &Block, data: String) -> Self {
        let used = u32::try_from(block.used().len()).unwrap_or(256);
        Self {
            network: id.space.network().as_str().to_owned(),
            cidr: objects::cidr(id),
            private: id.space.private_cidr().map(|cidr| cidr.to_string()),
            used,
            free: 256_u32.saturating_sub(used),
            data,
        }
    }
}

// === impl IPSpaceSpec ===

impl IPSpaceSpec {
    fn new(space: &Space, index: &Index, data: String) -> Self {
        // As long as the definition of the resource allows.
        let frozen = index.frozen().map(|reason| reason.chars().take(1000).collect());
        Self {
            network: space.network().as_str().to_owned(),
            family: FamilyName::from(space.family()),
            private: space.private_cidr().map(|cidr| cidr.to_string()),
            frozen,
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_that_are_deployed_are_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kubernetes/crds.yaml");
        let deployed = std::fs::read_to_string(path).unwrap();
        assert_eq!(
            definitions().unwrap(),
            deployed,
            "write it again: cargo run -p whereabouts --example crds > {path}"
        );
    }
}
