//! Whether the container's network namespace is the plugin's own, which is the mark of a runtime gone wrong.
//!
//! Other plugins look after they have worked, so that a call which fails for this leaves something behind. Here it is
//! looked at first.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why the network namespace cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// The container would share the network of the host.
    #[error(
        "plugin's netns and netns from CNI_NETNS should not be the same: CNI_NETNS = {}: give the container a network \
         namespace, or set CNI_NETNS_OVERRIDE=1 where this is meant",
        path.display()
    )]
    Same {
        /// CNI_NETNS.
        path: PathBuf,
    },
    /// The plugin's own namespace cannot be looked at.
    #[error("get plugin's netns failed: {OWN}: {source}: mount /proc, or set CNI_NETNS_OVERRIDE=1")]
    Own {
        /// What the operating system said.
        source: io::Error,
    },
}

const OWN: &str = "/proc/self/ns/net";

/// Refuses the plugin's own network namespace. A path that leads nowhere is no concern of an IPAM plugin, which never
/// enters it.
///
/// # Errors
/// [`NamespaceError`].
pub fn refuse_own_namespace(path: &Path) -> Result<(), NamespaceError> {
    let Ok(theirs) = path.metadata() else { return Ok(()) };
    let own = Path::new(OWN).metadata().map_err(|source| NamespaceError::Own { source })?;
    if (theirs.dev(), theirs.ino()) == (own.dev(), own.ino()) {
        return Err(NamespaceError::Same { path: path.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_namespace_is_refused() {
        let error = refuse_own_namespace(Path::new(OWN)).unwrap_err().to_string();
        assert!(error.contains("should not be the same") && error.contains("CNI_NETNS_OVERRIDE"), "{error}");
        let by_id = format!("/proc/{}/ns/net", std::process::id());
        assert!(refuse_own_namespace(Path::new(&by_id)).is_err());
        assert!(refuse_own_namespace(Path::new("/no/such/namespace")).is_ok());
        assert!(refuse_own_namespace(Path::new("/proc/self/ns/mnt")).is_ok());
    }
}
