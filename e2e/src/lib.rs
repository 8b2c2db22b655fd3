//! What the end-to-end tests need besides the rig: a real container runtime on a node, spoken to as a kubelet would; and
//! a driver that makes a runtime's calls in numbers, with a judge of what a node looks like afterwards.
//!
//! - [`program`] is the `main` of a test program: it puts the tests into the rig's sandbox and the machine's cgroups
//!   back in order.
//! - [`driver`] is a runtime of many callers, whose pods come and go; [`views`] compares what it believes with what
//!   daemon, kernel and fabric say.
//! - [`transfer`] sends bytes from one namespace to another; [`dump`] lists all that plugins change on a node.
//! - [`inside`] runs programs in a namespace.
//! - [`containerd`] runs containerd on a node, with nothing of it visible to the machine or outliving the test.
//! - [`cri`] makes the calls.
//! - [`image`] makes the sandbox image, so that nothing is pulled.
//! - [`cgroup`] removes the only thing that no namespace can hide.
//!
//! But for [`views`], which reads what Dotfour leaves in the kernel, nothing here knows the plugin under test: it is a file
//! and a network configuration, so the same steps run with a reference plugin as control.

pub mod cgroup;
pub mod containerd;
pub mod cri;
pub mod driver;
pub mod dump;
pub mod image;
pub mod inside;
pub mod program;
pub mod transfer;
pub mod views;

pub use containerd::{Containerd, Setup};
pub use cri::{ContainerState, Cri, HostPod, HostPort, NewContainer, PodSandbox};
pub use driver::Driver;
pub use dump::Dump;
pub use views::Views;
