//! Columns of text: as wide as they must be, two spaces apart, the last as long as the line allows.

use crate::ui::Tone;

/// A table with a heading.
pub(crate) struct Table {
    rows: Vec<Vec<(String, Tone)>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(headings: &[&str]) -> Table {
        Table { rows: vec![headings.iter().map(|heading| (heading.to_string(), Tone::Dim)).collect()] }
    }

    /// Adds a row, a cell a column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [(String, Tone); N]) {
        assert!(self.rows.iter().all(|row| row.len() == N), "every row has a cell for each column");
        self.rows.push(cells.into());
    }

    /// The lines, each with its newline; the last column is cut where the line would be longer than `width`.
    pub(crate) fn print(&self, width: Option<usize>) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let widest = |column: usize| self.rows.iter().map(|row| length(&row[column].0)).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(widest).collect();
        let before_last: usize = widths.iter().rev().skip(1).map(|width| width + 2).sum();
        let mut out = String::new();
        for row in &self.rows {
            for (column, (text, tone)) in row.iter().enumerate() {
                if column + 1 < columns {
                    out += &tone.paint(text);
                    out.extend(std::iter::repeat_n(' ', widths[column] - length(text) + 2));
                } else {
                    let most = width.map(|width| width.saturating_sub(before_last).max(16));
                    out += &tone.paint(cut(text, most));
                }
            }
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
        }
        out
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, most: Option<usize>) -> String {
    match most {
        Some(most) if length(text) > most => text.chars().take(most - 1).chain(['…']).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_in_line_and_the_last_is_cut() {
        let mut table = Table::new(&["A", "LONG", "REST"]);
        table.row([("ä-long".into(), Tone::Plain), (String::new(), Tone::Plain), ("x".repeat(40), Tone::Plain)]);
        let plain = anstream::adapter::strip_str(&table.print(Some(30))).to_string();
        assert_eq!(plain, format!("A       LONG  REST\nä-long        {}…\n", "x".repeat(15)));
    }
}
