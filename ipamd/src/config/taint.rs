//! The key of a taint.

use super::label::is_label;

/// A qualified name, as the API server takes it: a name, or the name of a domain, `/` and a name. A key that can be no taint's
/// would leave the node tainted, and nobody would know why.
pub(super) fn key(text: String) -> Result<String, String> {
    let (domain, name) = text.split_once('/').map_or((None, text.as_str()), |(domain, name)| (Some(domain), name));
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    let good_name = (1..=63).contains(&name.len())
        && name.chars().all(|c| alphanumeric(c) || "-_.".contains(c))
        && name.starts_with(alphanumeric)
        && name.ends_with(alphanumeric);
    let good_domain = domain.is_none_or(|domain| domain.len() <= 253 && domain.split('.').all(is_label));
    match good_name && good_domain {
        true => Ok(text),
        false => Err(format!("startupTaint: {text:?} is not the key of a taint, such as node.dotfour.io/not-ready")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn no_taint_is_removed_unless_its_key_is_named() {
        assert_eq!(Config::parse("source: {kind: wireserver}").unwrap().startup_taint, None);
        for key in ["node.dotfour.io/not-ready", "not-ready", "a.b/C_d.e"] {
            let config = Config::parse(&format!("startupTaint: {key}\nsource: {{kind: wireserver}}")).unwrap();
            assert_eq!(config.startup_taint.as_deref(), Some(key));
        }
        let long = format!("example.com/{}", "x".repeat(64));
        for key in ["''", "a/b/c", "/a", "a/", "-a", "A.com/x", "key=value:NoSchedule", &long] {
            let reason = Config::parse(&format!("startupTaint: {key}\nsource: {{kind: wireserver}}")).unwrap_err();
            assert!(reason.contains("startupTaint"), "{key} was refused with {reason:?}");
        }
    }
}
