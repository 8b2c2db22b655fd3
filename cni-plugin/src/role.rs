//! What the program is run as: its name says it.

/// The name under which the program only assigns addresses.
const IPAM: &[u8] = b"dotfour-ipam";

/// What the program is run as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// `dotfour`, called by a container runtime: the daemon wires the pod.
    #[default]
    Main,
    /// `dotfour-ipam`, called by a plugin that wires pods itself and names it as its `ipam.type` (SPEC.md 1.1.0, section 4,
    /// "Plugin Delegation"): the daemon assigns addresses and records them.
    Ipam,
}

impl Role {
    /// By the last part of the path in `argv[0]`, which whoever runs a plugin sets to where it has found the program.
    pub fn of(program: &[u8]) -> Role {
        let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if name == IPAM { Role::Ipam } else { Role::Main }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_part_of_the_path_counts_and_only_as_a_whole() {
        for program in ["dotfour-ipam", "/opt/cni/bin/dotfour-ipam", "./dotfour-ipam"] {
            assert_eq!(Role::of(program.as_bytes()), Role::Ipam, "{program}");
        }
        for program in ["", "/", "dotfour", "/dotfour-ipam/dotfour", "/opt/cni/bin/dotfour-ipamd", "x-dotfour-ipam"] {
            assert_eq!(Role::of(program.as_bytes()), Role::Main, "{program}");
        }
    }
}
