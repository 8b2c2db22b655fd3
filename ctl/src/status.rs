//! The status as aligned text.

use std::fmt::Write;

use dotfour_protocol::{AttachmentStatus, NodeStatus, PoolCounts};

/// The whole report.
pub(crate) fn text(status: &NodeStatus) -> String {
    let NodeStatus { version, mode, source, nic, node_address, pool, attachments, .. } = status;
    let mut text = format!("dotfour-ipamd {version}, {mode} mode, addresses of {nic} ({node_address}) from {source}\n");
    let PoolCounts { total, free, assigned, cooling, reserved, releasing, quarantined } = pool;
    text += &format!(
        "pool: {total} total = {free} free + {assigned} assigned + {cooling} cooling + {reserved} reserved + \
         {releasing} releasing + {quarantined} quarantined\n"
    );
    if attachments.is_empty() {
        return text + "no pods\n";
    }
    let mut rows = vec![["ADDRESS", "POD", "INTERFACE", "HOST LINK", "NETWORK", "CONTAINER"].map(str::to_owned)];
    rows.extend(attachments.iter().map(row));
    let widths: Vec<usize> =
        (0..6).map(|i| rows.iter().filter_map(|row| row.get(i)).map(String::len).max().unwrap_or(0)).collect();
    text.push('\n');
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn row(attachment: &AttachmentStatus) -> [String; 6] {
    let addresses: Vec<String> = attachment.addresses.iter().map(ToString::to_string).collect();
    let container = &attachment.key.container_id;
    [
        addresses.join(","),
        // The runtime gave none, or it was lost with the journal.
        attachment.pod.as_ref().map_or("-".into(), ToString::to_string),
        attachment.key.ifname.clone(),
        // Another plugin's, which the daemon does not know.
        if attachment.delegated { "(delegated)".to_owned() } else { attachment.host_ifname.clone() },
        attachment.key.network.clone(),
        container.get(..12).unwrap_or(container).to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use dotfour_protocol::{AttachmentKey, FamilyTotals, PodName};

    use super::*;

    #[test]
    fn columns_are_aligned_and_the_counts_add_up() {
        let attachment = |address: &str, pod: Option<&str>, delegated: bool| AttachmentStatus {
            key: AttachmentKey { network: "azure".into(), container_id: "c".repeat(64), ifname: "eth0".into() },
            pod: pod.map(|name| PodName { namespace: "default".into(), name: name.into() }),
            addresses: vec![address.parse().unwrap()],
            host_ifname: if delegated { String::new() } else { "azv0d7763386da".into() },
            delegated,
        };
        let status = NodeStatus {
            version: "0.1.0".into(),
            mode: "azure".into(),
            source: "wireserver".into(),
            nic: "eth0".into(),
            node_address: "10.240.0.4".parse().unwrap(),
            collected: 0,
            pool: PoolCounts { total: 30, free: 27, assigned: 3, ..PoolCounts::default() },
            totals: FamilyTotals::default(),
            attachments: vec![
                attachment("10.240.0.5", Some("web-0"), false),
                attachment("10.240.0.16", None, false),
                attachment("10.240.0.17", Some("web-1"), true),
            ],
            more: false,
        };
        let text = text(&status);
        assert!(text.contains("30 total = 27 free + 3 assigned"), "{text}");
        let columns: Vec<usize> =
            text.lines().filter_map(|line| line.find("azv").or(line.find("(delegated)"))).collect();
        assert_eq!(columns.len(), 3);
        assert!(columns.iter().all(|column| *column == columns[0]), "{text}");
    }
}
