//! The addresses that a pod must get, where somebody asks for any.
//!
//! There are three ways to ask, and host-local knows them too: `runtimeConfig.ips` (capability `ips`) and `args.cni.ips` of the
//! network configuration (CONVENTIONS.md of the CNI project), and `IP` in `CNI_ARGS`. They are united.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::quoted::Quoted;

/// At most one address of each family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked(Vec<IpAddr>);

impl Asked {
    /// Takes one more, as `ADDRESS` or `ADDRESS/PREFIX`; what a prefix would say is not the pod's choice. The same one
    /// twice is once.
    ///
    /// # Errors
    /// The rest of a sentence about `text`'s place.
    pub(crate) fn push(&mut self, text: &str) -> Result<(), String> {
        let address = text.split_once('/').map_or(text, |(address, _)| address);
        let address: IpAddr =
            address.parse().map_err(|_| format!("has {}, which is not an IP address", Quoted(text)))?;
        if self.0.contains(&address) {
            return Ok(());
        }
        if let Some(other) = self.0.iter().find(|other| other.is_ipv4() == address.is_ipv4()) {
            return Err(format!("has {address} beside {other}: a pod has one address of each family"));
        }
        self.0.push(address);
        Ok(())
    }

    /// Adds those of another place.
    ///
    /// # Errors
    /// As for one.
    pub(crate) fn unite(&mut self, other: &Asked) -> Result<(), String> {
        other.0.iter().try_for_each(|address| self.push(&format!("{address}")))
    }

    /// For the request.
    pub(crate) fn into_addresses(self) -> Vec<IpAddr> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(texts: &[&str]) -> Result<Vec<IpAddr>, String> {
        let mut asked = Asked::default();
        texts.iter().try_for_each(|text| asked.push(text))?;
        Ok(asked.into_addresses())
    }

    #[test]
    fn an_address_is_taken_with_a_prefix_and_without() {
        let both: Vec<IpAddr> = vec!["10.240.0.9".parse().unwrap(), "fd00::9".parse().unwrap()];
        assert_eq!(asked(&["10.240.0.9/16", "fd00::9", "10.240.0.9"]), Ok(both));
        assert_eq!(asked(&[]), Ok(Vec::new()));
    }

    #[test]
    fn a_second_address_of_a_family_is_refused() {
        let says = "has 10.240.0.8 beside 10.240.0.9: a pod has one address of each family";
        assert_eq!(asked(&["10.240.0.9", "fd00::9", "10.240.0.8"]), Err(says.into()));
    }

    #[test]
    fn what_is_no_address_is_named() {
        for text in ["", "/16", "10.240.0.256", "web-0", "10.240.0.9 "] {
            let fault = asked(&[text]).unwrap_err();
            assert!(fault.contains(&format!("{text:?}")), "{fault}");
        }
    }
}
