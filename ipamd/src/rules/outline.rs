//! What there is of the table, as far as it is compared: names, hooks, and the rules' comments. Not the sets' elements, which
//! may be many; the name of one set stands for them.

use serde_json::Value;

/// The names of what a table holds, as a terse listing shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// Each chain with its type, hook and priority, if it has them.
    pub chains: Vec<(String, String)>,
    /// The sets' names.
    pub sets: Vec<String>,
    /// The rules in order: chain and comment.
    pub rules: Vec<(String, String)>,
    /// The counters' names.
    pub counters: Vec<String>,
    /// Whether there is more to it than is understood.
    pub strange: bool,
}

impl Outline {
    /// Reads what `nft -j -t list table` prints. What is not understood is strange: a table with an owner, for example, of
    /// which nft 1.0.6 prints broken JSON.
    pub fn read(listing: &str) -> Self {
        let listing: Value = serde_json::from_str(listing).unwrap_or_default();
        let Some(objects) = listing.get("nftables").and_then(Value::as_array) else {
            return Outline { strange: true, ..Outline::default() };
        };
        let mut outline = Outline::default();
        for (kind, object) in objects.iter().filter_map(Value::as_object).flatten() {
            outline.note(kind, object);
        }
        outline.in_order()
    }

    fn note(&mut self, kind: &str, object: &Value) {
        let string = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        match kind {
            "chain" => {
                let priority = object.get("prio").and_then(Value::as_i64);
                let base = priority
                    .map(|priority| format!("{} {} {priority} {}", string("type"), string("hook"), string("policy")));
                self.chains.push((string("name"), base.unwrap_or_default()));
            }
            "set" => self.sets.push(string("name")),
            "rule" => self.rules.push((string("chain"), string("comment"))),
            "counter" => self.counters.push(string("name")),
            "metainfo" => {}
            // A table that sleeps has a flag.
            "table" => self.strange |= object.get("flags").is_some(),
            _ => self.strange = true,
        }
    }

    pub(super) fn in_order(mut self) -> Self {
        self.chains.sort();
        self.sets.sort();
        self.counters.sort();
        // Stable: within a chain the order says what the rules mean.
        self.rules.sort_by(|(one, _), (other, _)| one.cmp(other));
        self
    }
}
