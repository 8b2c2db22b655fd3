//! A table, for a terminal and for a page.

/// Rows of text under a head. The first column is on the left, the others on the right.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows yet. The title says what is measured, and in which unit.
    pub(crate) fn new(title: impl Into<String>, head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Table { title: title.into(), head: head.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Aligned by spaces, indented by two.
    pub(crate) fn text(&self) -> String {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |cells: &Vec<String>| {
            let cells = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                0 => format!("  {cell:<width$}"),
                _ => format!("   {cell:>width$}"),
            });
            cells.collect::<String>()
        };
        let body: Vec<String> = lines().map(line).collect();
        format!("  {}\n\n{}", self.title, body.join("\n"))
    }

    /// As Markdown, under a heading.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule: Vec<String> =
            (0..self.head.len()).map(|column| if column == 0 { "---" } else { "---:" }.to_owned()).collect();
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("## {}\n\n{}{}{rows}", self.title, line(&self.head), line(&rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("Times, ms", ["who", "median"]);
        table.row(["floor", "0.50"]);
        table.row(["ptp", "12.34"]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(table().text(), "  Times, ms\n\n  who     median\n  floor     0.50\n  ptp      12.34");
    }

    #[test]
    fn a_page_gets_the_same_rows() {
        assert_eq!(
            table().markdown(),
            "## Times, ms\n\n| who | median |\n| --- | ---: |\n| floor | 0.50 |\n| ptp | 12.34 |\n"
        );
    }
}
