//! Azure's wireserver: the document that says which addresses the VM's NICs carry.
//!
//! `GET /machine/plugins?comp=nmagent&type=getinterfaceinfov1` on 168.63.129.16, plain HTTP, no authentication.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::interfaces::{self, RawInterface, RawSubnet};
use super::{NicView, SourceError};
use crate::config::WireserverSource;
use crate::errors::with_source;

const PATH: &str = "/machine/plugins?comp=nmagent&type=getinterfaceinfov1";

/// 256 addresses make 14 KiB. The parser takes time by the square of what one element holds, so the bound is tight.
const MAX_DOCUMENT: usize = 128 * 1024;

/// The wireserver as a source.
#[derive(Debug)]
pub struct Wireserver {
    host: String,
    port: u16,
    timeout: Duration,
}

impl Wireserver {
    /// The source for a checked configuration.
    pub fn new(config: &WireserverSource) -> Self {
        Wireserver { host: config.host.clone(), port: config.port, timeout: config.timeout }
    }

    fn url(&self) -> String {
        format!("http://{}:{}{PATH}", self.host, self.port)
    }

    pub(super) async fn report(&self) -> Result<Vec<NicView>, SourceError> {
        let document = match tokio::time::timeout(self.timeout, self.get()).await {
            Ok(answer) => answer?,
            Err(_) => {
                return Err(self.unreachable(format!("no complete answer within {:?}", self.timeout)));
            }
        };
        parse(&document).map_err(|reason| SourceError::Document { origin: self.url(), reason })
    }

    /// One request on a connection of its own, straight to the address: the wireserver must not be asked via a proxy,
    /// and it is asked too rarely for a kept connection to pay.
    async fn get(&self) -> Result<Bytes, SourceError> {
        let stream =
            TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|e| self.unreachable(e.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.unreachable(e.to_string()))?;
        // Ends by itself once the answer is read or the sender dropped.
        tokio::spawn(connection);
        let request = Request::get(Uri::from_static(PATH))
            .header(header::HOST, &self.host)
            .body(Empty::<Bytes>::new())
            .map_err(|e| self.unreachable(e.to_string()))?;
        let response = sender.send_request(request).await.map_err(|e| self.unreachable(with_source(&e)))?;
        if response.status() != StatusCode::OK {
            return Err(SourceError::Status { url: self.url(), status: response.status().as_u16() });
        }
        let body = Limited::new(response.into_body(), MAX_DOCUMENT)
            .collect()
            .await
            .map_err(|e| self.unreachable(format!("the answer broke off: {}", with_source(&*e))))?;
        Ok(body.to_bytes())
    }

    fn unreachable(&self, reason: String) -> SourceError {
        SourceError::Unreachable { url: self.url(), reason }
    }
}

/// Reads the interface document. A document that breaks off, or says something that is no address, is an error as a
/// whole: a shorter list would take addresses from the pool.
pub fn parse(document: &[u8]) -> Result<Vec<NicView>, String> {
    let text = std::str::from_utf8(document).map_err(|e| e.to_string())?;
    let tree = roxmltree::Document::parse(text).map_err(|e| e.to_string())?;
    let root = tree.root_element();
    if !root.has_tag_name("Interfaces") {
        return Err(format!("its root is {:?} and not \"Interfaces\"", root.tag_name().name()));
    }
    let mut raw = Vec::new();
    for interface in children(root, "Interface") {
        let mut subnets = Vec::new();
        for subnet in children(interface, "IPSubnet") {
            let addresses = children(subnet, "IPAddress")
                .map(|address| Ok((attribute(address, "Address")?, is_primary(address)?)))
                .collect::<Result<_, String>>()?;
            subnets.push(RawSubnet { prefix: attribute(subnet, "Prefix")?, addresses });
        }
        raw.push(RawInterface {
            mac: attribute(interface, "MacAddress")?,
            is_primary: is_primary(interface)?,
            subnets,
        });
    }
    interfaces::read(raw)
}

fn children<'a, 'i>(
    parent: roxmltree::Node<'a, 'i>,
    tag: &'static str,
) -> impl Iterator<Item = roxmltree::Node<'a, 'i>> {
    parent.children().filter(move |node| node.has_tag_name(tag))
}

fn attribute<'a>(node: roxmltree::Node<'a, '_>, name: &str) -> Result<&'a str, String> {
    node.attribute(name).ok_or_else(|| format!("an {} lacks its {name}", node.tag_name().name()))
}

/// `IsPrimary`, which is "true" or "false". Absent means false; any other word is an error, because a primary address
/// taken for a secondary would be given to a pod.
fn is_primary(node: roxmltree::Node<'_, '_>) -> Result<bool, String> {
    match node.attribute("IsPrimary") {
        None => Ok(false),
        Some(word) if word.eq_ignore_ascii_case("true") => Ok(true),
        Some(word) if word.eq_ignore_ascii_case("false") => Ok(false),
        Some(word) => Err(format!("IsPrimary is {word:?} and neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOCUMENT: &str = r#"<Interfaces>
  <Interface MacAddress="002248263DBD" IsPrimary="true">
    <IPSubnet Prefix="10.240.0.0/16">
      <IPAddress Address="10.240.0.4" IsPrimary="true"/>
      <IPAddress Address="10.240.0.5" IsPrimary="false"/>
    </IPSubnet>
  </Interface>
</Interfaces>"#;

    #[test]
    fn the_document_is_read() {
        let nics = parse(DOCUMENT.as_bytes()).unwrap();
        assert_eq!(nics.len(), 1);
        assert_eq!(nics[0].mac, Some("00:22:48:26:3d:bd".parse().unwrap()));
        assert!(nics[0].is_primary);
        let subnet = &nics[0].subnets[0];
        assert_eq!(subnet.prefix.to_string(), "10.240.0.0/16");
        assert_eq!(subnet.primaries.len(), 1);
        assert_eq!(subnet.secondaries[0].to_string(), "10.240.0.5");
    }

    #[test]
    fn a_document_cut_anywhere_is_an_error() {
        for end in 0..DOCUMENT.len() {
            assert!(parse(&DOCUMENT.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn odd_words_are_errors_that_name_them() {
        for (from, to, named) in [
            ("10.240.0.5", "10.240.0.500", "10.240.0.500"),
            ("/16", "/99", "/99"),
            ("002248263DBD", "eth0", "eth0"),
            ("\"false\"", "\"maybe\"", "maybe"),
            ("Prefix=", "Subnet=", "Prefix"),
            ("Interfaces", "Interface", "Interface"),
        ] {
            let reason = parse(DOCUMENT.replace(from, to).as_bytes()).unwrap_err();
            assert!(reason.contains(named), "{reason}");
        }
        assert!(parse(b"<Interfaces/>").unwrap_err().contains("no interface"));
    }

    #[test]
    fn a_star_means_any_nic_and_lower_case_is_the_same_mac() {
        assert_eq!(parse(DOCUMENT.replace("002248263DBD", "*").as_bytes()).unwrap()[0].mac, None);
        let lower = parse(DOCUMENT.to_lowercase().replace("ipaddress", "IPAddress").as_bytes());
        assert!(lower.is_err(), "element names keep their case");
        assert_eq!(parse(DOCUMENT.replace("3DBD", "3dbd").as_bytes()).unwrap(), parse(DOCUMENT.as_bytes()).unwrap());
    }

    proptest! {
        #[test]
        fn no_document_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_change_of_a_document_makes_it_panic(at in 0..DOCUMENT.len(), byte in any::<u8>()) {
            let mut bytes = DOCUMENT.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = parse(&bytes);
        }
    }
}
