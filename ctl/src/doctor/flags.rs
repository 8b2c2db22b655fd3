//! Command lines of Kubernetes' programs, which are those of the Go library pflag.

/// The words behind a program's name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flags<'w>(pub(crate) &'w [String]);

impl<'w> Flags<'w> {
    /// The value of `--name VALUE` or `--name=VALUE`. The last one counts, as there.
    pub(crate) fn value(self, name: &str) -> Option<&'w str> {
        let mut value = None;
        let mut words = self.words();
        while let Some(word) = words.next() {
            match of(word, name) {
                Some(Some(text)) => value = Some(text),
                Some(None) => value = words.next().or(value),
                None => {}
            }
        }
        value
    }

    /// What a switch was set to: `--name`, `--name=true` or `--name=false`; `None` if it was not, or to nothing that is
    /// known.
    pub(crate) fn switch(self, name: &str) -> Option<bool> {
        self.words().filter_map(|word| of(word, name)).last().and_then(|text| match text {
            None | Some("true" | "True" | "TRUE" | "t" | "T" | "1") => Some(true),
            Some("false" | "False" | "FALSE" | "f" | "F" | "0") => Some(false),
            Some(_) => None,
        })
    }

    /// The words up to `--`, behind which there are no flags.
    fn words(self) -> impl Iterator<Item = &'w str> {
        self.0.iter().map(String::as_str).take_while(|word| *word != "--")
    }
}

/// What stands behind `=`, if the word is this flag.
fn of<'w>(word: &'w str, name: &str) -> Option<Option<&'w str>> {
    match word.strip_prefix("--")?.strip_prefix(name)? {
        "" => Some(None),
        rest => rest.strip_prefix('=').map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read_and_the_last_one_counts() {
        let words = [
            "--max-pods",
            "20",
            "--max-pods-x=1",
            "--max-pods=30",
            "--b",
            "--a=false",
            "--c=perhaps",
            "--",
            "--max-pods=9",
        ]
        .map(str::to_owned);
        let flags = Flags(&words);
        assert_eq!(flags.value("max-pods"), Some("30"));
        assert_eq!(flags.value("config"), None);
        assert_eq!(["a", "b", "c", "d"].map(|name| flags.switch(name)), [Some(false), Some(true), None, None]);
        assert_eq!(Flags(&words[..1]).value("max-pods"), None, "a flag without its value");
    }
}
