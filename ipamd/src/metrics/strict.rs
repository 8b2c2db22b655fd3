//! A reader of OpenMetrics texts that forgives nothing. For this package's tests, of the library and of the daemon.

/// A sample's name, its labels as they are written, and its value.
pub(crate) type Sample = (String, String, f64);

/// Reads a whole OpenMetrics text and checks it on the way: every sample belongs to the family declared last, with a
/// suffix that the family's type has; every family is declared once, with help, type and prefix; no sample comes twice;
/// every histogram's buckets ascend, are cumulative, and end with `+Inf`, which is its count.
pub(crate) fn read_strictly(text: &str) -> Vec<Sample> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with EOF");
    let mut families: Vec<(String, String)> = Vec::new();
    let mut samples: Vec<Sample> = Vec::new();
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (keyword, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            assert!(name.starts_with("dotfour_"), "{line}");
            match keyword {
                "HELP" => {
                    assert!(families.iter().all(|(known, _)| known != name), "{name} is declared twice");
                    assert!(rest.ends_with('.'), "{line}");
                    families.push((name.to_owned(), String::new()));
                }
                "TYPE" => {
                    let (known, kind) = families.last_mut().unwrap();
                    assert_eq!((known.as_str(), kind.as_str()), (name, ""), "{line}");
                    assert!(["counter", "gauge", "histogram", "info"].contains(&rest), "{line}");
                    *kind = rest.to_owned();
                }
                "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{line}"),
                other => panic!("{other} is no keyword"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').unwrap();
            assert!(key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
            assert!(!value.is_empty() && !value.contains(['"', '\\', '\n']), "{line}");
        }
        let (family, kind) = families.last().unwrap();
        let suffixes: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => &[""],
        };
        assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{line} is no {kind} {family}");
        let (name, labels) = (name.to_owned(), labels.to_owned());
        assert!(!samples.iter().any(|sample| (&sample.0, &sample.1) == (&name, &labels)), "{line} comes twice");
        samples.push((name, labels, value.parse().unwrap()));
    }
    for (family, _) in families.iter().filter(|(_, kind)| kind == "histogram") {
        check_histogram(family, &samples);
    }
    samples
}

fn check_histogram(family: &str, samples: &[Sample]) {
    let suffixed = |suffix: &str| format!("{family}{suffix}");
    for (_, labels, count) in samples.iter().filter(|(name, ..)| *name == suffixed("_count")) {
        let buckets: Vec<(f64, f64)> = samples
            .iter()
            .filter(|(name, ..)| *name == suffixed("_bucket"))
            .filter_map(|(_, all, value)| {
                let (bound, others) = all.strip_prefix("le=\"")?.split_once('"')?;
                (others.trim_start_matches(',') == labels).then(|| (bound.parse().unwrap(), *value))
            })
            .collect();
        assert!(buckets.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1), "{family} {labels}: {buckets:?}");
        assert_eq!(*buckets.last().unwrap(), (f64::INFINITY, *count), "{family} {labels}");
        assert!(samples.iter().any(|(name, others, _)| *name == suffixed("_sum") && others == labels));
    }
}
