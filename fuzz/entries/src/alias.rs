//! The alias of a pod's host link.

use dotfour_datapath::link::{Link, MAX_ALIAS};
use dotfour_ipamd::lease::recover::find;
use dotfour_ipamd::wiring::names::CONDEMNED_GROUPS;
use dotfour_ipamd::wiring::tag::{NotATag, Tag, is_ours};

/// An alias that is read prints back to what reads the same, is known as ours, and names a pod; one that is not read
/// names none. No link of ours is passed over without a word.
pub fn alias(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let tag: Result<Tag, NotATag> = text.parse();
    let link = |group| Link { index: 70, name: "azv1".into(), alias: Some(text.into()), group, ..Link::default() };
    let alive = find(&[link(0)]);
    let condemned = find(&[link(*CONDEMNED_GROUPS.start())]);
    if let Ok(tag) = &tag {
        assert!(is_ours(text));
        let printed = tag.to_string();
        assert_eq!(printed.parse().as_ref(), Ok(tag));
        assert_eq!(tag.to_alias(), (printed.len() <= MAX_ALIAS).then_some(printed));
        assert!(tag.addresses.iter().next().is_some(), "a tag without an address");
        assert_eq!(alive.pods.iter().map(|(tag, _)| tag).collect::<Vec<_>>(), [tag]);
        assert!(alive.foreign.is_empty());
    } else {
        assert!(alive.pods.is_empty());
        assert_eq!(alive.foreign, ["azv1"]);
    }
    assert_eq!(!condemned.condemned_groups.is_empty(), is_ours(text), "a condemned link is buried if it is ours");
    assert!(!is_ours(text) || condemned.pods.is_empty(), "a condemned link is no pod");
    tag.is_ok()
}
