//! A Kubernetes cluster on this machine, and faults on the way to its control plane, for tests and benchmarks.
//!
//! A [`ControlPlane`] is a real kube-apiserver over a real etcd, which can be killed, stopped for a while and put back
//! to an earlier state. A [`FaultProxy`] stands between a client and the server and loses replies, lets requests land
//! late and so on, by [`Rule`]s. A [`SimulatedNode`] is what a node is to the plugin: a name, a ledger's folder, and a
//! kubeconfig. A [`RealNode`] has a kubelet and a containerd, on which pods run; [`Controllers`] make them.
//!
//! ```no_run
//! use whereabouts_testbed::{ControlPlane, Fault, FaultProxy, Rule, SimulatedNode};
//!
//! let control_plane = ControlPlane::start()?;
//! let proxy = FaultProxy::before(&control_plane)?;
//! let node = SimulatedNode::new(&control_plane, "node-1", ("kube-system", "whereabouts"), proxy.url());
//! proxy.add(Rule::new(Fault::DropReply).method("PUT").times(1));
//! // Here the plugin runs with node.env(), and with node.kubeconfig in its configuration.
//! for seen in proxy.requests() {
//!     assert_eq!(seen.served, Some(200), "{} {}", seen.method, seen.path);
//! }
//! # Ok::<(), String>(())
//! ```
//!
//! What cannot be had on this machine is an error in words for people, for a test to say why it was skipped. What goes
//! wrong later ends the test at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a driver of tests that cannot go on ends the test"
)]

mod certificates;
mod control_plane;
mod controllers;
mod fault_proxy;
mod http;
mod node;
mod processes;
pub mod programs;
mod real_node;

pub use control_plane::{ControlPlane, EtcdBytes, NODE_TOKENS, Snapshot};
pub use controllers::Controllers;
pub use fault_proxy::{Fault, FaultProxy, Rule, Seen, UNDEFINED};
pub use node::SimulatedNode;
pub use real_node::RealNode;
