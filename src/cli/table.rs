//! Plain text in columns.

use std::fmt::Write;

/// Sets rows in columns as wide as their widest cell, two spaces apart. Nothing stands behind the last cell of a row.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string does not fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Sets rows in columns, with cells wrapped at spaces so that no line is longer than `width`, as far as words allow.
pub(super) fn columns_within<const N: usize>(rows: &[[String; N]], width: usize) -> String {
    let longest = |text: &str| text.split(' ').map(|word| word.chars().count()).max().unwrap_or(0);
    let mut widths = [0; N];
    let mut least = [0; N];
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            widths[at] = widths[at].max(cell.chars().count());
            least[at] = least[at].max(longest(cell));
        }
    }
    // The widest column that can be narrower gives way.
    while widths.iter().sum::<usize>() + 2 * N.saturating_sub(1) > width {
        let widest = (0..N).filter(|&at| widths[at] > least[at]).max_by_key(|&at| widths[at]);
        let Some(widest) = widest else { break };
        widths[widest] -= 1;
    }
    let mut lines = Vec::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| wrapped(cell, width)).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(1);
        for line in 0..height {
            lines.push(std::array::from_fn(|at| cells.get(at).and_then(|c| c.get(line)).cloned().unwrap_or_default()));
        }
    }
    columns::<N>(&lines)
}

/// The longest line of a list in characters.
pub(super) const LIST_WIDTH: usize = 100;

/// Sets the rows of a list in columns.
pub(super) fn listed<const N: usize>(rows: &[[String; N]]) -> String {
    columns_within(rows, LIST_WIDTH)
}

/// Returns the heading of a list.
pub(super) fn heading<const N: usize>(names: [&str; N]) -> [String; N] {
    names.map(str::to_uppercase)
}

/// Breaks a text at spaces into lines of at most `width` characters, as far as words allow. Spaces at the start stay, and
/// begin each line.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let indent: String = text.chars().take_while(|&c| c == ' ').collect();
    let mut lines = vec![indent.clone()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let fits = |line: &String| line.chars().count() + 1 + word.chars().count() <= width;
        match lines.last_mut() {
            Some(line) if *line == indent => line.push_str(word),
            Some(line) if fits(line) => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{columns, columns_within, wrapped};

    #[test]
    fn the_widest_column_is_wrapped() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let rows = [row(["name", "about", "keys"]), row(["a", "one two three four five", "x, y"])];
        let text = columns_within(&rows, 24);
        assert_eq!(text, "name  about       keys\na     one two     x, y\n      three four\n      five\n");
        assert_eq!(columns_within(&rows, 100), columns(&rows));
        assert_eq!(wrapped("  a long word", 8), ["  a long", "  word"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let rows = [row(["a", "bb", "x"]), row(["ééé", "", "yy"]), row(["c", "", ""])];
        assert_eq!(columns(&rows), "a    bb  x\nééé      yy\nc\n");
        assert_eq!(columns::<2>(&[]), "");
    }
}
