//! The wireserver's interface document (`getinterfaceinfov1`).

use std::fmt::Write as _;
use std::net::IpAddr;

use dotfour_datapath::Mac;

use super::{Fault, Subnet};

/// A MAC with Microsoft's prefix that [`super::nics`] never gives: its primary address would be a broadcast one.
const NOBODYS_MAC: Mac = Mac([0x00, 0x0d, 0x3a, 0xff, 0xff, 0xff]);

/// What the document says.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The NIC's MAC address.
    pub mac: Mac,
    /// The subnet.
    pub subnet: Subnet,
    /// The NIC's primary address.
    pub primary: IpAddr,
    /// All of the NIC's addresses, the primary one among them.
    pub addresses: &'a [IpAddr],
    /// How many requests came before: a reordered document is another one each time.
    pub request: usize,
}

/// Writes the document as Azure does: attributes only, MAC in upper case without separators, one interface, an `IPSubnet`
/// for each family on the NIC, primary first. No IPv6 address is marked primary, the node's own neither. Faults of the
/// connection change nothing here.
pub fn write(facts: &Facts<'_>, fault: &Fault) -> String {
    if *fault == Fault::Empty {
        return "<Interfaces></Interfaces>".to_owned();
    }
    let mut addresses = facts.addresses.to_vec();
    match fault {
        Fault::Reordered if !addresses.is_empty() => {
            let turns = facts.request.saturating_add(1) % addresses.len();
            addresses.rotate_left(turns);
        }
        Fault::Without(missing) => addresses.retain(|address| address != missing),
        _ => {}
    }
    let mut text = format!("<Interfaces><Interface MacAddress=\"{}\" IsPrimary=\"true\">", mac(facts.mac, fault));
    for range in facts.subnet.ranges() {
        let mut here = addresses.iter().filter(|address| range.contains(*address)).peekable();
        // A NIC without IPv6 says nothing of the subnet's.
        if range.addr().is_ipv6() && here.peek().is_none() {
            continue;
        }
        let _ = write!(text, "<IPSubnet Prefix=\"{range}\">");
        for address in here {
            let primary = *address == facts.primary;
            let _ = write!(text, "<IPAddress Address=\"{address}\" IsPrimary=\"{primary}\"/>");
        }
        text.push_str("</IPSubnet>");
    }
    text.push_str("</Interface></Interfaces>");
    text
}

fn mac(mac: Mac, fault: &Fault) -> String {
    let digits = |mac: Mac| mac.to_string().replace(':', "");
    match fault {
        Fault::AnyMac => "*".to_owned(),
        Fault::LowerCaseMac => digits(mac),
        Fault::WrongMac => digits(NOBODYS_MAC).to_uppercase(),
        _ => digits(mac).to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(fault: &Fault, request: usize) -> String {
        let addresses = [4, 5, 6].map(|last| IpAddr::from([10, 240, 0, last]));
        let facts = Facts {
            mac: Mac([0x00, 0x22, 0x48, 0x26, 0x3d, 0xbd]),
            subnet: "10.240.0.0/16".parse().unwrap(),
            primary: addresses[0],
            addresses: &addresses,
            request,
        };
        write(&facts, fault)
    }

    #[test]
    fn a_document_is_as_azure_writes_it() {
        let expected = r#"<Interfaces><Interface MacAddress="002248263DBD" IsPrimary="true"><IPSubnet Prefix="10.240.0.0/16">
            <IPAddress Address="10.240.0.4" IsPrimary="true"/><IPAddress Address="10.240.0.5" IsPrimary="false"/>
            <IPAddress Address="10.240.0.6" IsPrimary="false"/></IPSubnet></Interface></Interfaces>"#;
        let without_layout: String = expected.lines().map(str::trim).collect();
        assert_eq!(document(&Fault::None, 0), without_layout);
    }

    #[test]
    fn the_nodes_own_ipv6_address_is_marked_by_nothing() {
        let addresses = ["10.240.0.4", "10.240.0.5", "fd00::4", "fd00::5"].map(|text| text.parse().unwrap());
        let facts = Facts {
            mac: Mac([0x00, 0x22, 0x48, 0x26, 0x3d, 0xbd]),
            subnet: "10.240.0.0/16,fd00::/64".parse().unwrap(),
            primary: addresses[0],
            addresses: &addresses,
            request: 0,
        };
        let text = write(&facts, &Fault::None);
        let expected = r#"<IPSubnet Prefix="10.240.0.0/16"><IPAddress Address="10.240.0.4" IsPrimary="true"/><IPAddress Address="10.240.0.5" IsPrimary="false"/></IPSubnet><IPSubnet Prefix="fd00::/64"><IPAddress Address="fd00::4" IsPrimary="false"/><IPAddress Address="fd00::5" IsPrimary="false"/></IPSubnet>"#;
        assert!(text.contains(expected), "{text}");
        assert!(!write(&Facts { addresses: &addresses[..2], ..facts }, &Fault::None).contains("fd00"));
    }

    #[test]
    fn faults_of_the_document_change_only_what_they_name() {
        let plain = document(&Fault::None, 0);
        assert_eq!(document(&Fault::LowerCaseMac, 0), plain.replace("3DBD", "3dbd"));
        assert_eq!(document(&Fault::AnyMac, 0), plain.replace("002248263DBD", "*"));
        assert_eq!(document(&Fault::WrongMac, 0), plain.replace("002248263DBD", "000D3AFFFFFF"));
        let five = IpAddr::from([10, 240, 0, 5]);
        let left_out = r#"<IPAddress Address="10.240.0.5" IsPrimary="false"/>"#;
        assert_eq!(document(&Fault::Without(five), 0), plain.replace(left_out, ""));
        assert_eq!(document(&Fault::Empty, 0), "<Interfaces></Interfaces>");
        assert_eq!(document(&Fault::Hang(std::time::Duration::from_secs(1)), 0), plain);
    }

    #[test]
    fn a_reordered_document_has_the_same_addresses_in_another_order_each_time() {
        let orders: Vec<String> = (0..2).map(|request| document(&Fault::Reordered, request)).collect();
        assert_ne!(orders[0], orders[1]);
        for order in &orders {
            assert_ne!(*order, document(&Fault::None, 0));
            assert!(order.contains(r#"Address="10.240.0.4" IsPrimary="true""#), "{order}");
            assert_eq!(order.len(), document(&Fault::None, 0).len());
        }
    }
}
