//! The wireserver's interface document (`getinterfaceinfov1`).

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use dotfour_datapath::Mac;
use ipnet::Ipv4Net;

use super::Fault;

/// A MAC with Microsoft's prefix that [`super::nics`] never gives: its primary address would be a broadcast one.
const NOBODYS_MAC: Mac = Mac([0x00, 0x0d, 0x3a, 0xff, 0xff, 0xff]);

/// What the document says.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The NIC's MAC address.
    pub mac: Mac,
    /// The subnet.
    pub subnet: Ipv4Net,
    /// The NIC's primary address.
    pub primary: Ipv4Addr,
    /// All of the NIC's addresses, the primary one among them.
    pub addresses: &'a [Ipv4Addr],
    /// How many requests came before: a reordered document is another one each time.
    pub request: usize,
}

/// Writes the document as Azure does: attributes only, MAC in upper case without separators, one interface, primary
/// first. Faults of the connection change nothing here.
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
    let mut text = format!(
        "<Interfaces><Interface MacAddress=\"{}\" IsPrimary=\"true\"><IPSubnet Prefix=\"{}\">",
        mac(facts.mac, fault),
        facts.subnet
    );
    for address in addresses {
        let primary = address == facts.primary;
        let _ = write!(text, "<IPAddress Address=\"{address}\" IsPrimary=\"{primary}\"/>");
    }
    text.push_str("</IPSubnet></Interface></Interfaces>");
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
        let addresses = [4, 5, 6].map(|last| Ipv4Addr::new(10, 240, 0, last));
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
    fn faults_of_the_document_change_only_what_they_name() {
        let plain = document(&Fault::None, 0);
        assert_eq!(document(&Fault::LowerCaseMac, 0), plain.replace("3DBD", "3dbd"));
        assert_eq!(document(&Fault::AnyMac, 0), plain.replace("002248263DBD", "*"));
        assert_eq!(document(&Fault::WrongMac, 0), plain.replace("002248263DBD", "000D3AFFFFFF"));
        let five = Ipv4Addr::new(10, 240, 0, 5);
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
