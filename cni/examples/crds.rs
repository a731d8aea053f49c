//! Prints the definitions of the custom resources, as `deploy/kubernetes/crds.yaml` has them.
//!
//! ```sh
//! cargo run -q -p whereabouts --example crds > deploy/kubernetes/crds.yaml
//! ```

use std::io::Write;

fn main() -> anyhow::Result<()> {
    std::io::stdout().write_all(whereabouts::stores::kubernetes::definitions()?.as_bytes())?;
    Ok(())
}
