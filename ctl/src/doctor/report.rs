//! The findings as text and as JSON.

use serde_json::{Value, json};

use super::finding::{Finding, Severity, Unseen};

/// For people.
pub(crate) fn text(findings: &[Finding], unseen: &[Unseen]) -> String {
    let mut text = String::new();
    for Finding { code, what, why, fix } in findings {
        text += &format!("{} {}\n  what: {what}\n  why:  {why}\n  do:   {fix}\n", code.severity().name(), code.name());
    }
    for Unseen { what, why } in unseen {
        text += &format!("not seen: {what}, because {why}\n");
    }
    let count = |severity| findings.iter().filter(|finding| finding.code.severity() == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    text + &match (errors, warnings) {
        (0, 0) => "nothing found\n".to_owned(),
        _ => format!("errors: {errors}, warnings: {warnings}\n"),
    }
}

/// For programs.
pub(crate) fn json(findings: &[Finding], unseen: &[Unseen]) -> String {
    let findings: Vec<Value> = findings
        .iter()
        .map(|Finding { code, what, why, fix }| {
            json!({"code": code.name(), "severity": code.severity().name(), "what": what, "why": why, "do": fix})
        })
        .collect();
    let unseen: Vec<Value> = unseen.iter().map(|Unseen { what, why }| json!({"what": what, "why": why})).collect();
    format!("{:#}\n", json!({"findings": findings, "unseen": unseen}))
}
