//! What the end-to-end tests need besides the rig: a real container runtime on a node, spoken to as a kubelet would.
//!
//! - [`program`] is the `main` of a test program: it puts the tests into the rig's sandbox and the machine's cgroups
//!   back in order.
//! - [`containerd`] runs containerd on a node, with nothing of it visible to the machine or outliving the test.
//! - [`cri`] makes the calls.
//! - [`image`] makes the sandbox image, so that nothing is pulled.
//! - [`cgroup`] removes the only thing that no namespace can hide.
//!
//! Nothing here knows the plugin under test: it is a file and a network configuration, so the same steps run with a
//! reference plugin as control.

pub mod cgroup;
pub mod containerd;
pub mod cri;
pub mod image;
pub mod program;

pub use containerd::{Containerd, Setup};
pub use cri::{Cri, PodSandbox};
