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

#[cfg(test)]
mod tests {
    use super::columns;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let rows = [row(["a", "bb", "x"]), row(["ééé", "", "yy"]), row(["c", "", ""])];
        assert_eq!(columns(&rows), "a    bb  x\nééé      yy\nc\n");
        assert_eq!(columns::<2>(&[]), "");
    }
}
