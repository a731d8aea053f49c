//! From an object of the cluster to what it says, and what is wrong with it if it says nothing that can be believed.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use whereabouts_engine::{Block, BlockId, Index, Object, ReadError, Space, Stored};

use super::client::Resource;
use super::data::{self, ClusterId, DataError};
use super::names;
use super::objects::{IPBlockSpec, IPSpaceSpec};
use super::outcomes::Metadata;

/// An object as it is read.
#[derive(Debug, Deserialize)]
pub(super) struct Got<S> {
    pub(super) metadata: Metadata,
    pub(super) spec: S,
}

/// Reads an object that somebody else has fetched, as `kubectl get -o json` shows it: of the cluster whose namespace
/// `kube-system` has the UID `cluster`.
///
/// # Errors
/// [`ReadError`] when it is no sound `IPSpace` or `IPBlock` of that cluster.
pub fn read_object(cluster: &str, object: &Value) -> Result<Object, ReadError> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let no_object = |reason: &str| ReadError::Unsound { object: name.to_owned(), reason: reason.to_owned() };
    let cluster = ClusterId::parse(cluster).ok_or_else(|| no_object("the UID of its cluster is none"))?;
    match object.get("kind").and_then(Value::as_str) {
        Some("IPBlock") => {
            let got: Got<IPBlockSpec> = parse(Resource::Blocks, name, object.clone())?;
            let id = got.spec.id().map_err(|reason| unsound(Resource::Blocks, name, reason))?;
            Ok(Object::Block(id.clone(), block(cluster, &id, got)?.object.into()))
        }
        Some("IPSpace") => {
            let got: Got<IPSpaceSpec> = parse(Resource::Spaces, name, object.clone())?;
            let space = got.spec.space().map_err(|reason| unsound(Resource::Spaces, name, reason))?;
            Ok(Object::Index(space.clone(), index(cluster, &space, got)?.object.into()))
        }
        _ => Err(no_object("it is neither an IPSpace nor an IPBlock")),
    }
}

/// An object of this form.
pub(super) fn parse<S: DeserializeOwned>(resource: Resource, name: &str, object: Value) -> Result<Got<S>, ReadError> {
    serde_json::from_value(object).map_err(|error| unsound(resource, name, format!("it is not of this form: {error}")))
}

/// The block that was asked for.
pub(super) fn block(cluster: ClusterId, id: &BlockId, got: Got<IPBlockSpec>) -> Result<Stored<Block>, ReadError> {
    let name = &got.metadata.name;
    let wrong = |reason: String| unsound(Resource::Blocks, name, reason);
    let claimed = got.spec.id().map_err(wrong)?;
    if claimed != *id || *name != names::of_block(id) {
        return Err(wrong(format!("it says to be block {claimed}, which has another name")));
    }
    let record = record(cluster, Resource::Blocks, name, &got.spec.data)?;
    let object = Block::from_record(id, &record).map_err(|error| wrong(error.to_string()))?;
    Ok(Stored { version: got.metadata.version(), identity: got.metadata.identity(), object })
}

/// The index that was asked for.
pub(super) fn index(cluster: ClusterId, space: &Space, got: Got<IPSpaceSpec>) -> Result<Stored<Index>, ReadError> {
    let name = &got.metadata.name;
    let wrong = |reason: String| unsound(Resource::Spaces, name, reason);
    let claimed = got.spec.space().map_err(wrong)?;
    if claimed != *space || *name != names::of_space(space) {
        return Err(wrong(format!("it says to be the index of {claimed}, which has another name")));
    }
    let record = record(cluster, Resource::Spaces, name, &got.spec.data)?;
    let object = Index::from_record(space, &record).map_err(|error| wrong(error.to_string()))?;
    Ok(Stored { version: got.metadata.version(), identity: got.metadata.identity(), object })
}

/// The record in a field `data`.
fn record(cluster: ClusterId, resource: Resource, name: &str, field: &str) -> Result<Vec<u8>, ReadError> {
    data::read(cluster, field).map_err(|error| match error {
        DataError::Unsound(reason) => unsound(resource, name, reason),
        DataError::Foreign(of) => ReadError::Foreign {
            object: object_name(resource, name),
            reason: format!("it was written for the cluster {of}, and this is {cluster}"),
        },
    })
}

/// As `kubectl get` takes it.
pub(super) fn object_name(resource: Resource, name: &str) -> String {
    format!("{}/{name}", resource.plural())
}

pub(super) fn unsound(resource: Resource, name: &str, reason: String) -> ReadError {
    ReadError::Unsound { object: object_name(resource, name), reason }
}
