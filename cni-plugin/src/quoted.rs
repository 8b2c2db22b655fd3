//! A value from outside, as an error message shows it.

use core::fmt;

/// Shows a value between quotes, cut where it would drown the message. Control characters need no care here: every
/// message ends up in a JSON string, which escapes them.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

/// Longer than any value that is right, short enough for one line of an event.
const SHOWN_BYTES: usize = 128;

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.floor_char_boundary(SHOWN_BYTES);
        let (shown, rest) = self.0.split_at(end);
        let mark = if rest.is_empty() { "" } else { "…" };
        write!(f, "\"{shown}{mark}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_between_characters() {
        assert_eq!(Quoted("eth0").to_string(), "\"eth0\"");
        let exactly = "x".repeat(SHOWN_BYTES);
        assert_eq!(Quoted(&exactly).to_string(), format!("\"{exactly}\""));
        let cut = Quoted(&"é".repeat(SHOWN_BYTES)).to_string();
        assert_eq!(cut, format!("\"{}…\"", "é".repeat(SHOWN_BYTES / 2)));
        assert_eq!(Quoted(&format!("x{}", "é".repeat(SHOWN_BYTES))).to_string().chars().count(), 1 + 63 + 3);
    }
}
