//! What a node can be configured to. A mode, or another configuration, is one more column.

/// How the daemons of a world are configured.
pub(crate) struct Column {
    /// What the printed table calls it.
    pub(crate) name: &'static str,
    /// Its directory.
    pub(crate) place: &'static str,
    /// More of the daemon's configuration; CONFIG is the directory of the ip-masq-agent's files.
    pub(crate) yaml: &'static str,
    /// A file of the ip-masq-agent.
    pub(crate) file: Option<&'static str>,
}

/// How many columns there are.
pub(crate) const COLUMNS: usize = 5;

/// All columns, in the order of the cells of a row.
pub(crate) const ALL: [Column; COLUMNS] = [
    Column { name: "nothing", place: "nothing", yaml: "", file: None },
    Column {
        name: "the VNet",
        place: "vnet",
        yaml: "masquerade: {vnetCidrs: [10.240.0.0/16, 'fd00:10:240::/64']}",
        file: None,
    },
    Column {
        name: "VNet, peer and on-prem",
        place: "wide",
        yaml: "masquerade: {vnetCidrs: [10.240.0.0/15, 192.168.7.0/24, 'fd00:10:240::/60', 'fd00:10:241::/64', 'fd00:192::/64']}",
        file: None,
    },
    // As aks-engine writes it. It names no IPv6 network, as the agent of that time knew none.
    Column {
        name: "the agent's file",
        place: "file",
        yaml: "masquerade: {configDir: CONFIG}",
        file: Some("nonMasqueradeCIDRs: [10.240.0.0/16, 168.63.129.16/32]\nmasqLinkLocal: true\nresyncInterval: 60s\n"),
    },
    Column {
        name: "the VNet, `metadata: block`",
        place: "block",
        yaml: "metadata: block\nmasquerade: {vnetCidrs: [10.240.0.0/16, 'fd00:10:240::/64']}",
        file: None,
    },
];
