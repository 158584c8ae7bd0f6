//! Aligned columns of text. Forty lines: a table crate would bring a terminal library with it.

/// Which side a column's cells lean on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// A table being filled; every row has as many cells as the head.
#[derive(Debug)]
pub(crate) struct Grid<const N: usize> {
    sides: [Side; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Grid<N> {
    pub(crate) fn new(head: [(&str, Side); N]) -> Self {
        Self {
            sides: head.map(|(_, side)| side),
            rows: vec![head.map(|(name, _)| name.to_owned())],
        }
    }

    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    /// One line per row, the head first, columns two spaces apart.
    pub(crate) fn lines(&self) -> Vec<String> {
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths: [usize; N] = std::array::from_fn(width);
        let line = |row: &[String; N]| {
            let cells =
                row.iter().zip(self.sides).zip(widths).map(|((cell, side), width)| match side {
                    Side::Left => format!("{cell:<width$}"),
                    Side::Right => format!("{cell:>width$}"),
                });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

/// `12,345`.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut grid = Grid::new([("server", Side::Left), ("p50", Side::Right)]);
        grid.row(["s1".to_owned(), "810 µs".to_owned()]);
        grid.row(["a longer name".to_owned(), "1 ms".to_owned()]);
        assert_eq!(
            grid.lines(),
            ["server            p50", "s1             810 µs", "a longer name    1 ms"]
        );
    }

    #[test]
    fn thousands_are_grouped() {
        let texts = [0, 999, 1_000, 12_345, 1_000_000].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "12,345", "1,000,000"]);
    }
}
