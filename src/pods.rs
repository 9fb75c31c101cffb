//! Which pod, volume and container uses which mount, from the node alone; names are put beside it where a cluster tells.

pub mod cgroup;
pub mod names;
pub mod namespaces;
