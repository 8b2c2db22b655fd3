//! Legacy iptables, without asking its programs: that would load the modules of tables that nobody uses.

/// Whose tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Whether legacy iptables has a table in the calling thread's network namespace.
pub(super) fn has_table(family: Family, table: &str) -> bool {
    let path = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    std::fs::read_to_string(path).unwrap_or_default().lines().any(|name| name == table)
}
