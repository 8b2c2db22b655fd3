use proptest::prelude::*;
use serde_json::{Map, Value as Tree};

use super::*;

fn collect(json: &[u8]) -> Result<Map<String, Tree>, String> {
    let mut map = Map::new();
    members(json, &mut |value| {
        let tree = serde_json::from_str(value.raw).map_err(|e| e.to_string())?;
        map.insert(value.name.to_owned(), tree);
        Ok(())
    })?;
    Ok(map)
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::from),
        any::<i64>().prop_map(Tree::from),
        any::<f64>().prop_map(Tree::from),
        ".*".prop_map(Tree::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Tree::from),
            proptest::collection::btree_map(".*", inner, 0..4).prop_map(Tree::from_iter),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn an_object_of_strings_is_read_as_serde_json_reads_it_however_it_is_written(
        map in proptest::collection::btree_map("[a-z\"\\\\\u{1}ä]{0,5}", "[a-z/.\"\\\\\u{7f}ß]{0,9}", 0..5),
        pretty: bool,
        at: prop::sample::Index,
        with in proptest::option::of("[\"\\\\,:{} a\u{c}\t]{0,2}"),
    ) {
        let mut json = if pretty { serde_json::to_string_pretty(&map) } else { serde_json::to_string(&map) }.unwrap();
        if let Some(with) = with {
            let at = at.get(&json.char_indices().collect::<Vec<_>>()).0;
            json.insert_str(at, &with);
        }
        prop_assert_eq!(collect(json.as_bytes()).ok(), serde_json::from_str(&json).ok(), "{}", json);
    }

    #[test]
    fn an_object_has_the_members_that_serde_json_finds(map in proptest::collection::btree_map(".*", tree(), 0..6)) {
        let json = serde_json::to_vec(&map).unwrap();
        let expected: Map<String, Tree> = serde_json::from_slice(&json).unwrap();
        prop_assert_eq!(collect(&json).unwrap(), expected);
    }

    #[test]
    fn a_text_is_the_one_that_serde_json_reads(text in ".*") {
        let json = serde_json::to_vec(&Map::from_iter([("t".to_owned(), Tree::from(text.clone()))])).unwrap();
        members(&json, &mut |value| {
            assert_eq!(value.text().unwrap().unwrap(), text);
            Ok(())
        }).unwrap();
    }

    #[test]
    fn an_object_as_go_writes_it_is_read_as_serde_json_reads_it_whatever_is_changed_in_it(
        at: prop::sample::Index,
        length in 0..3_usize,
        with in "[-+{}\\[\\]\",:.0-9eEtrufalsn \t\u{c}\\\\x]{0,3}",
    ) {
        let mut json = PREVIOUS.to_owned();
        let at = at.index(json.len() - length);
        json.replace_range(at..at + length, &with);
        prop_assert_eq!(collect(json.as_bytes()).ok(), serde_json::from_str(&json).ok(), "{}", json);
        // Also where nobody looks into the values.
        let parts = serde_json::from_str::<std::collections::BTreeMap<String, &RawValue>>(&json);
        prop_assert_eq!(members(json.as_bytes(), &mut |_| Ok(())).is_ok(), parts.is_ok(), "{}", json);
    }

    #[test]
    fn what_serde_json_refuses_is_refused(at in 0..24_usize, with in "[\\x00-\\x7f]{0,3}") {
        let mut json = r#"{"a":[1,{}],"b":"\u00e9"}"#.to_owned();
        json.replace_range(at..=at, &with);
        prop_assert_eq!(collect(json.as_bytes()).ok(), serde_json::from_str(&json).ok(), "{}", json);
    }
}

/// A bit of everything that a configuration may have, as it comes at a DEL.
const PREVIOUS: &str = concat!(
    r#"{"cniVersion":"1.0.0","name":"azure","prevResult":{"interfaces":[{"name":"eth0","mtu":1500,"mac":"0a:b1"},{}],"#,
    r#""ips":[{"interface":0,"address":"10.0.0.5/32"}],"routes":[],"n":[-1,10,0]},"a":null,"b":true,"c":false}"#,
);

#[test]
fn a_configuration_as_it_comes_at_a_del_is_read_without_the_library() {
    let count = |json: &str| plain_members(json.as_bytes(), &mut [("", ""); MOST]);
    assert_eq!(count(PREVIOUS), Some(6));
    let deep = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(count(&deep(usize::from(DEPTH))).is_some());
    assert!(count(&deep(usize::from(DEPTH) + 1)).is_none());
    let wide = |members| format!("{{{}}}", vec![r#""a":1"#; members].join(","));
    assert!(count(&wide(MOST)).is_some());
    assert!(count(&wide(MOST + 1)).is_none());
}

#[test]
fn white_space_that_json_does_not_have_is_no_white_space() {
    for (text, good) in [(" \r\n\t{\"a\":\"b\"} ", true), ("\u{c}{\"a\":\"b\"}", false), ("{\"a\":\"b\"}\u{c}", false)]
    {
        assert_eq!(members(text.as_bytes(), &mut |_| Ok(())).is_ok(), good, "{text:?}");
    }
    assert_eq!((trimmed(b" \t"), trimmed(b"\x0c")), (&b""[..], &b"\x0c"[..]));
}

#[test]
fn the_elements_of_an_array_carry_its_name() {
    let mut seen = Vec::new();
    members(br#"{"list":["a",7,"\n"],"none":null}"#, &mut |list| {
        list.elements(&mut |element| {
            seen.push((element.name.to_owned(), element.text().map(|text| text.map(Cow::into_owned))));
            Ok(())
        })
    })
    .unwrap();
    let read = |text: &str| ("list".to_owned(), Ok(Some(text.to_owned())));
    assert_eq!(seen, [read("a"), ("list".to_owned(), Err("list must be a string".to_owned())), read("\n")]);
}

#[test]
fn the_first_fault_ends_the_reading_and_is_what_is_reported() {
    let mut seen = 0;
    let fault = members(br#"{"a":1,"b":2,"c":}"#, &mut |member| {
        seen += 1;
        if member.name == "b" { Err("b is wrong".to_owned()) } else { Ok(()) }
    });
    assert_eq!((fault, seen), (Err("b is wrong".to_owned()), 2));
}

#[test]
fn depth_costs_no_stack() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(500_000), "]".repeat(500_000));
    assert!(members(deep.as_bytes(), &mut |_| Ok(())).is_ok());
}
