//! Which questions get an answer, and which one. Pure.

use serde_json::{Value, json};

/// The versions of the interface, newest last.
pub const VERSIONS: [&str; 6] = ["2017-04-02", "2017-08-01", "2018-10-01", "2021-01-01", "2021-02-01", "2023-07-01"];

/// What counts of a request.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// The query, without the question mark.
    pub query: &'a str,
    /// The value of the header `Metadata`.
    pub metadata: Option<&'a [u8]>,
    /// Whether there is a header `X-Forwarded-For`.
    pub forwarded: bool,
}

/// A good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A part of the document.
    Json(String),
    /// A leaf, or the names of a part's members.
    Text(String),
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another method than GET.
    Method,
    /// The header `Metadata: true` is missing: perhaps the request was made for somebody else.
    NoHeader,
    /// It has come through a proxy.
    Forwarded,
    /// `api-version` is missing.
    NoVersion,
    /// There is no such version.
    UnknownVersion,
    /// A key of the query is there twice.
    Duplicate,
    /// A leaf was asked for as JSON, or a format that there is not.
    Format,
    /// There is nothing there.
    NotFound,
    /// More than five requests in a second.
    TooMany,
}

impl Refusal {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Refusal::Method => 405,
            Refusal::NotFound => 404,
            Refusal::TooMany => 429,
            _ => 400,
        }
    }

    /// The body.
    pub fn body(self) -> String {
        let text = match self {
            Refusal::Method => "Method not allowed",
            Refusal::NoHeader => "Bad request. Required metadata header not specified",
            Refusal::Forwarded => "Bad request. A request with X-Forwarded-For is refused",
            Refusal::NoVersion => "Bad request. api-version was not specified in the request",
            Refusal::UnknownVersion => "Bad request. api-version is invalid",
            Refusal::Duplicate => "Bad request. A query key is given more than once",
            Refusal::Format => "Bad request. The format does not fit: a leaf needs format=text",
            Refusal::NotFound => "Not found",
            Refusal::TooMany => "Too many requests",
        };
        let mut body = json!({"error": text});
        if matches!(self, Refusal::NoVersion | Refusal::UnknownVersion)
            && let Some(members) = body.as_object_mut()
        {
            let newest: Vec<&str> = VERSIONS.iter().rev().take(3).copied().collect();
            members.insert("newest-versions".to_owned(), json!(newest));
        }
        body.to_string()
    }
}

/// Judges a request. `document` is the tree under `/metadata/instance`.
pub fn answer(asked: &Asked<'_>, document: impl FnOnce() -> Value) -> Result<Answer, Refusal> {
    if asked.forwarded {
        return Err(Refusal::Forwarded);
    }
    if !asked.metadata.is_some_and(|value| value.eq_ignore_ascii_case(b"true")) {
        return Err(Refusal::NoHeader);
    }
    if asked.method != "GET" {
        return Err(Refusal::Method);
    }
    let pairs: Vec<(String, &str)> = asked
        .query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key.to_ascii_lowercase(), value))
        .collect();
    if pairs.iter().enumerate().any(|(i, (key, _))| pairs.iter().take(i).any(|(earlier, _)| earlier == key)) {
        return Err(Refusal::Duplicate);
    }
    let value = |wanted: &str| pairs.iter().find(|(key, _)| key == wanted).map(|(_, value)| *value);
    let path = asked.path.trim_end_matches('/').to_ascii_lowercase();
    if path == "/metadata/versions" {
        return Ok(Answer::Json(json!({"apiVersions": VERSIONS}).to_string()));
    }
    let below = path.strip_prefix("/metadata/instance").ok_or(Refusal::NotFound)?;
    if !below.is_empty() && !below.starts_with('/') {
        return Err(Refusal::NotFound);
    }
    let version = value("api-version").ok_or(Refusal::NoVersion)?;
    if !VERSIONS.contains(&version) {
        return Err(Refusal::UnknownVersion);
    }
    let tree = document();
    let found = below.split('/').skip(1).try_fold(&tree, |at, step| child(at, step)).ok_or(Refusal::NotFound)?;
    match (found, value("format").unwrap_or("json")) {
        (Value::String(leaf), "text") => Ok(Answer::Text(leaf.clone())),
        (Value::String(_), _) => Err(Refusal::Format),
        (branch, "json") => Ok(Answer::Json(branch.to_string())),
        (branch, "text") => Ok(Answer::Text(names(branch))),
        _ => Err(Refusal::Format),
    }
}

/// A member by its name, whatever its case, or an element by its number.
fn child<'v>(at: &'v Value, step: &str) -> Option<&'v Value> {
    match at {
        Value::Object(members) => {
            members.iter().find(|(key, _)| key.eq_ignore_ascii_case(step)).map(|(_, value)| value)
        }
        Value::Array(elements) => elements.get(step.parse::<usize>().ok()?),
        _ => None,
    }
}

/// The names below, one a line; those with more below end in a slash.
fn names(branch: &Value) -> String {
    let line = |name: String, value: &Value| if value.is_string() { name } else { name + "/" };
    let lines: Vec<String> = match branch {
        Value::Object(members) => members.iter().map(|(key, value)| line(key.clone(), value)).collect(),
        Value::Array(elements) => elements.iter().enumerate().map(|(i, value)| line(i.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Asked<'static> = Asked {
        method: "GET",
        path: "/metadata/instance/network",
        query: "api-version=2021-02-01&format=json",
        metadata: Some(b"true"),
        forwarded: false,
    };

    fn ask(asked: Asked<'_>) -> Result<Answer, Refusal> {
        answer(&asked, || json!({"network": {"interface": [{"macAddress": "000D3A000004"}]}}))
    }

    #[test]
    fn a_proper_request_gets_its_part_of_the_tree() {
        let network = r#"{"interface":[{"macAddress":"000D3A000004"}]}"#.to_owned();
        assert_eq!(ask(GOOD), Ok(Answer::Json(network)));
        let leaf = Asked { path: "/metadata/instance/network/interface/0/macAddress", ..GOOD };
        assert_eq!(ask(leaf), Err(Refusal::Format));
        let text = Asked { query: "format=text&api-version=2021-02-01", ..leaf };
        assert_eq!(ask(text), Ok(Answer::Text("000D3A000004".to_owned())));
        let names = Asked { query: "format=text&api-version=2021-02-01", ..GOOD };
        assert_eq!(ask(names), Ok(Answer::Text("interface/".to_owned())));
        let versions = Asked { path: "/metadata/versions", query: "", ..GOOD };
        assert!(matches!(ask(versions), Ok(Answer::Json(text)) if text.contains("2021-02-01")));
    }

    #[test]
    fn what_azure_refuses_is_refused_with_its_reason() {
        assert_eq!(ask(Asked { metadata: None, ..GOOD }), Err(Refusal::NoHeader));
        assert_eq!(ask(Asked { metadata: Some(b"false"), ..GOOD }), Err(Refusal::NoHeader));
        assert_eq!(ask(Asked { forwarded: true, ..GOOD }), Err(Refusal::Forwarded));
        assert_eq!(ask(Asked { method: "POST", ..GOOD }), Err(Refusal::Method));
        assert_eq!(ask(Asked { query: "format=json", ..GOOD }), Err(Refusal::NoVersion));
        assert_eq!(ask(Asked { query: "api-version=1999-01-01", ..GOOD }), Err(Refusal::UnknownVersion));
        let twice = "api-version=2021-02-01&API-version=2021-02-01";
        assert_eq!(ask(Asked { query: twice, ..GOOD }), Err(Refusal::Duplicate));
        for path in [
            "/",
            "/metadata",
            "/metadata/instances",
            "/metadata/instance/net",
            "/metadata/instance/network/interface/1",
        ] {
            assert_eq!(ask(Asked { path, ..GOOD }), Err(Refusal::NotFound), "{path}");
        }
        let body: Value = serde_json::from_str(&Refusal::NoVersion.body()).unwrap();
        assert_eq!(body["newest-versions"][0], VERSIONS[5]);
        assert!(body["error"].as_str().unwrap().starts_with("Bad request. api-version was not specified"));
        assert_eq!((Refusal::TooMany.status(), Refusal::NoHeader.status()), (429, 400));
    }
}
