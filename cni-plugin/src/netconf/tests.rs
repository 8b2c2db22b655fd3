use core::net::IpAddr;

use super::*;

/// The smallest configuration with these members besides.
fn with(members: &str) -> String {
    format!(r#"{{"cniVersion":"1.1.0","name":"azure","type":"dotfour"{members}}}"#)
}

fn code(input: &str) -> (u32, String) {
    let failure = NetConf::parse(input.as_bytes()).expect_err(input);
    assert!(!failure.next_step.is_empty());
    (failure.code, failure.message)
}

#[test]
fn the_least_configuration_gets_the_default_socket() {
    let input = with("");
    let conf = NetConf::parse(input.as_bytes()).unwrap();
    assert_eq!((conf.version, &*conf.name, &*conf.socket), (CniVersion::V1_1_0, "azure", DEFAULT_SOCKET));
    assert!(conf.dns.is_none());
}

#[test]
fn what_is_for_others_is_passed_by() {
    let input = with(
        r#","prevResult":{"ips":[{"address":1e999}],"dns":7},"runtimeConfig":{"name":3},"ipam":[[]],
        "socket":"/a","args":null,"capabilities":{"dns":true}"#,
    );
    assert_eq!(NetConf::parse(input.as_bytes()).unwrap().socket, "/a");
}

#[test]
fn escapes_are_read_and_null_is_absence() {
    let input = with(r#","socket":"\/run\u002fx","dns":null,"spoolDir":null"#);
    let conf = NetConf::parse(input.as_bytes()).unwrap();
    assert_eq!(conf.socket, "/run/x");
    assert!(conf.dns.is_none());
    let input = with(r#","socket":null"#);
    assert_eq!(NetConf::parse(input.as_bytes()).unwrap().socket, DEFAULT_SOCKET);
}

#[test]
fn dns_is_kept_as_it_is_if_a_result_may_have_it() {
    let dns = r#"{ "nameservers": ["168.63.129.16"], "domain": "x", "search": null, "options": [], "more": 1 }"#;
    let input = with(&format!(r#","dns":{dns}"#));
    assert_eq!(NetConf::parse(input.as_bytes()).unwrap().dns.unwrap(), dns);
    for (dns, says) in [
        ("7", "dns must be an object"),
        ("[]", "dns must be an object"),
        (r#"{"nameservers":"1.1.1.1"}"#, "nameservers must be an array"),
        (r#"{"nameservers":[1]}"#, "nameservers must be a string"),
        (r#"{"search":[{}]}"#, "search must be a string"),
        (r#"{"options":{}}"#, "options must be an array"),
        (r#"{"domain":["x"]}"#, "domain must be a string"),
    ] {
        let (code, message) = code(&with(&format!(r#","dns":{dns}"#)));
        assert_eq!(code, 6, "{dns}");
        assert!(message.ends_with(says), "{dns}: {message}");
    }
}

#[test]
fn the_wrong_shape_is_code_6() {
    for input in [
        "",
        " ",
        "null",
        "7",
        "\"x\"",
        "[]",
        r#"["1.1.0","azure"]"#,
        "{",
        r#"{"name""#,
        "{}x",
        "{} {}",
        "{'name':1}",
        r#"{"cniVersion":1.1}"#,
        &with(r#","name":5"#),
        &with(r#","socket":["/x"]"#),
        &with(r#","type":{}"#),
        &with(r#","spoolDir":1"#),
        &with(",\"socket\":\"/\\ud800\""),
        &with(",\"socket\":\"/\u{1}\""),
        &with(","),
    ] {
        assert_eq!(code(input).0, 6, "{input}");
    }
    let failure = NetConf::parse(b"{\"name\":\"\xff\"}").unwrap_err();
    assert_eq!(failure.code, 6);
    assert!(code(&with(r#","name":5"#)).1.ends_with(": name must be a string"));
}

#[test]
fn a_value_that_cannot_be_used_is_code_7() {
    for name in ["", "-a", "a b", "a/b", "é", ".."] {
        let (code, message) = code(&format!(r#"{{"cniVersion":"1.1.0","name":"{name}"}}"#));
        assert_eq!(code, 7, "{name}");
        assert!(message.starts_with(&format!("name \"{name}\" must")), "{message}");
    }
    assert_eq!(code(r#"{"cniVersion":"1.1.0"}"#).0, 7);
    let longest = "x".repeat(106);
    assert!(NetConf::parse(with(&format!(r#","socket":"/{longest}""#)).as_bytes()).is_ok());
    for socket in ["", "run/x", "@abstract", r"/a\u0000b", &format!("/{longest}x")] {
        let (code, message) = code(&with(&format!(r#","socket":"{socket}""#)));
        assert_eq!(code, 7, "{socket}");
        assert!(message.starts_with("socket "), "{message}");
    }
}

#[test]
fn a_version_that_is_not_served_is_code_1_and_the_message_lists_those_that_are() {
    for (version, says) in [
        (r#""cniVersion":"0.2.0","#, "cniVersion \"0.2.0\""),
        (r#""cniVersion":"9.9.9","#, "cniVersion \"9.9.9\""),
        (r#""cniVersion":"","#, "cniVersion \"\""),
        ("", "means 0.2.0"),
    ] {
        let (code, message) = code(&format!(r#"{{{version}"name":"azure"}}"#));
        assert_eq!(code, 1);
        assert!(message.contains(says), "{message}");
        for version in CniVersion::SUPPORTED {
            assert!(message.contains(&format!(" {}", version.name())), "{message}");
        }
    }
}

#[test]
fn of_a_member_that_comes_twice_the_last_counts() {
    let input = with(r#","name":"other""#);
    assert_eq!(NetConf::parse(input.as_bytes()).unwrap().name, "other");
}

#[test]
fn an_error_carries_the_version_if_that_can_be_read() {
    for (input, version) in [
        (r#"{"cniVersion":"0.4.0","name":5}"#, CniVersion::V0_4_0),
        (r#"{"cniVersion":"0.3.1","name":"#, CniVersion::V0_3_1),
        (r#"{"name":5,"cniVersion":"1.0.0"}"#, CniVersion::V1_0_0),
        (r#"{"cniVersion":"0.2.0"}"#, CniVersion::NEWEST),
        (r#"{"cniVersion":4}"#, CniVersion::NEWEST),
        ("", CniVersion::NEWEST),
        (r#"["0.4.0"]"#, CniVersion::NEWEST),
    ] {
        assert_eq!(version_of(input.as_bytes()), version, "{input}");
    }
}

#[test]
fn version_repeats_what_the_input_names() {
    for (input, version) in [
        ("", "1.1.0"),
        (" \n", "1.1.0"),
        ("{}", "1.1.0"),
        (r#"{"cniVersion":null}"#, "1.1.0"),
        (r#"{"cniVersion":"0.4.0","name":7}"#, "0.4.0"),
        (r#"{"cniVersion":"2.0.0"}"#, "2.0.0"),
    ] {
        assert_eq!(version_asked(input.as_bytes()).unwrap(), version, "{input}");
    }
    for input in ["{", "[]", r#"{"cniVersion":1}"#, r#"{"cniVersion":"1.1.0""#] {
        assert_eq!(version_asked(input.as_bytes()).unwrap_err().code, 6, "{input}");
    }
}

#[test]
fn the_addresses_that_are_asked_for_are_found_in_both_places() {
    let asked = |members: &str| {
        let input = with(members);
        let asked = NetConf::parse(input.as_bytes()).unwrap().asked();
        asked.map(Asked::into_addresses).map_err(|failure| (failure.code, failure.message))
    };
    let v4: IpAddr = "10.240.0.9".parse().unwrap();
    let v6: IpAddr = "fd00::9".parse().unwrap();
    assert_eq!(
        asked(r#","runtimeConfig":{"mac":"x","ips":["10.240.0.9/16"]},"args":{"cni":{"ips":["fd00::9"]}}"#),
        Ok(vec![v4, v6])
    );
    for nothing in
        ["", r#","runtimeConfig":null,"args":{"cni":null}"#, r#","runtimeConfig":{"ips":[null]},"args":{"x":1}"#]
    {
        assert_eq!(asked(nothing), Ok(Vec::new()), "{nothing}");
    }
    for (members, says) in [
        (r#","runtimeConfig":[]"#, "runtimeConfig must be an object"),
        (r#","runtimeConfig":{"ips":"10.240.0.9"}"#, "ips must be an array"),
        (r#","runtimeConfig":{"ips":["web"]}"#, r#"runtimeConfig.ips has "web", which is not an IP address"#),
        (r#","args":{"cni":{"ips":[7]}}"#, "ips must be a string"),
        (
            r#","runtimeConfig":{"ips":["10.240.0.9"]},"args":{"cni":{"ips":["10.240.0.8"]}}"#,
            "args.cni.ips has 10.240.0.8 beside 10.240.0.9: a pod has one address of each family",
        ),
    ] {
        assert_eq!(asked(members), Err((7, says.into())), "{members}");
    }
}

fn ipam_code(input: &str) -> (u32, String) {
    let failure = NetConf::parse_as(Role::Ipam, input.as_bytes()).expect_err(input);
    (failure.code, failure.message)
}

#[test]
fn dotfour_ipam_finds_its_places_inside_ipam_and_leaves_the_rest_to_the_other_plugin() {
    let read = |members: &str| -> (String, String) {
        let input = with(members);
        let conf = NetConf::parse_as(Role::Ipam, input.as_bytes()).unwrap();
        (conf.socket.to_string(), conf.spool_dir().into_owned())
    };
    let theirs = r#","socket":7,"spoolDir":[],"ipam":{"type":"dotfour-ipam""#;
    let default = (DEFAULT_SOCKET.to_owned(), "/run/dotfour/spool".to_owned());
    assert_eq!(read(&format!("{theirs}}}")), default);
    assert_eq!(read(&format!(r#"{theirs},"socket":"/a/s"}}"#)), ("/a/s".to_owned(), "/a/spool".to_owned()));
    let both = format!(r#"{theirs},"socket":"/a/s","spoolDir":"/b","ranges":[]}}"#);
    assert_eq!(read(&both), ("/a/s".to_owned(), "/b".to_owned()));
}

#[test]
fn dotfour_ipam_wants_an_ipam_and_usable_places_in_it() {
    for (members, code, says) in [
        ("", 7, "there is no ipam"),
        (r#","ipam":null"#, 7, "there is no ipam"),
        (r#","ipam":[]"#, 6, "ipam must be an object"),
        (r#","ipam":{"socket":7}"#, 6, "socket must be a string"),
        (r#","ipam":{"socket":"run/s"}"#, 7, "socket \"run/s\" must be an absolute path"),
        (r#","ipam":{"spoolDir":"s"}"#, 7, "spoolDir \"s\" must be an absolute path"),
    ] {
        let (got, message) = ipam_code(&with(members));
        assert_eq!(got, code, "{members}");
        assert!(message.contains(says), "{members}: {message}");
    }
}
