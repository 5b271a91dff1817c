//! The places of a contact sheet's images and labels.

use super::canvas::{GLYPH, shorten, text_width};
use crate::cli::requests::Sweep;

/// The longest side of a sheet in pixels.
pub(super) const LONGEST_SIDE: usize = 4096;

/// The space around cells in pixels.
const GAP: usize = 8;

/// The additional space above labels that belong to the image below them.
const LABEL_GAP: usize = 2 * GAP;

/// The largest scale of text.
const LARGEST_SCALE: usize = 3;

/// The smallest cell in which an image can be told from another.
const SMALLEST_CELL: usize = 32;

/// The smallest cell of a row or a table; if it would be smaller, the images flow.
const SMALLEST_TABLE_CELL: usize = 64;

/// The characters of the longest label of a seed.
const SEED_LENGTH: usize = "seed = ".len() + 20;

/// The characters of a row's label that are shown.
const ROW_LABEL_LENGTH: usize = 40;

/// The labels of combinations.
pub(super) struct Labels {
    pub(super) sweeps: Vec<Sweep>,
}

impl Labels {
    /// Returns the number of combinations.
    pub(super) fn combinations(&self) -> usize {
        self.sweeps.iter().map(|sweep| sweep.values.len()).product::<usize>().max(1)
    }

    /// Returns a combination's labels, one per sweep, such as `scheduler = unipc`. The last sweep changes first.
    fn of(&self, combination: usize) -> Vec<String> {
        let mut rest = combination;
        let mut labels = Vec::new();
        for sweep in self.sweeps.iter().rev() {
            labels.push(format!("{} = {}", sweep.key, sweep.values[rest % sweep.values.len()]));
            rest /= sweep.values.len();
        }
        labels.reverse();
        labels
    }

    /// Returns all sweeps as text.
    pub(super) fn summary(&self) -> String {
        let sweep = |sweep: &Sweep| format!("{} = {}", sweep.key, sweep.values.join(", "));
        self.sweeps.iter().map(sweep).collect::<Vec<_>>().join("; ")
    }

    /// Returns the characters of the longest label of these sweeps.
    fn longest(sweeps: &[Sweep]) -> usize {
        let length = |sweep: &Sweep| {
            let value = sweep.values.iter().map(|value| value.chars().count()).max();
            sweep.key.chars().count() + " = ".len() + value.unwrap_or_default()
        };
        sweeps.iter().map(length).max().unwrap_or_default()
    }
}

/// The arrangement of a sheet's images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrangement {
    /// The last sweep's values are columns, those of the one before, if any, are rows; labels are headings.
    Table,
    /// Images follow each other, and each has its labels above it.
    Flow,
}

/// The rows and columns of a sheet.
#[derive(Debug)]
pub(super) struct Grid {
    arrangement: Arrangement,
    pub(super) columns: usize,
    pub(super) rows: usize,
    /// The values of the last sweep.
    last: usize,
    /// The most images of a prompt and a combination.
    pub(super) copies: usize,
    /// Lines of text above the columns of a table, or above each image of a flow.
    lines: usize,
    /// The characters of the rows' labels.
    row_label: usize,
}

impl Grid {
    /// Chooses a table for one and two sweeps, and a flow for more or if the cells of a table were too small. `None` if
    /// those of a flow are too small as well.
    pub(super) fn fitting(labels: &Labels, copies: usize) -> Option<Self> {
        let copies = copies.max(1);
        let is_fitting = |grid: &Self, least: usize| {
            let (width, height) = grid.largest_cell();
            width.min(height) >= least
        };
        let table = (labels.sweeps.len() <= 2).then(|| Self::table(labels, copies));
        let table = table.filter(|table| is_fitting(table, SMALLEST_TABLE_CELL));
        table.or_else(|| Some(Self::flow(labels, copies)).filter(|flow| is_fitting(flow, SMALLEST_CELL)))
    }

    fn table(labels: &Labels, copies: usize) -> Self {
        let last = labels.sweeps.last().map_or(1, |sweep| sweep.values.len());
        let row_sweeps = labels.sweeps.split_last().map_or(&[][..], |(_, others)| others);
        let seed = if copies > 1 { SEED_LENGTH } else { 0 };
        Self {
            arrangement: Arrangement::Table,
            columns: last,
            rows: labels.combinations() / last * copies,
            last,
            copies,
            lines: 1,
            row_label: Labels::longest(row_sweeps).max(seed).min(ROW_LABEL_LENGTH),
        }
    }

    fn flow(labels: &Labels, copies: usize) -> Self {
        let images = labels.combinations() * copies;
        let last = labels.sweeps.last().map_or(1, |sweep| sweep.values.len());
        let square = (1..).find(|side| side * side >= images).unwrap_or(images);
        // Whole runs of the last sweep in a row make rows that compare.
        let run = last * copies;
        let columns = if run <= square { square / run * run } else { square };
        Self {
            arrangement: Arrangement::Flow,
            columns,
            rows: images.div_ceil(columns),
            last,
            copies,
            lines: labels.sweeps.len() + usize::from(copies > 1),
            row_label: 0,
        }
    }

    /// Returns the largest size of a cell's image, which leaves room for labels of the largest scale.
    pub(super) fn largest_cell(&self) -> (usize, usize) {
        let line = line_height(self.largest_scale());
        let side = |taken: usize, count: usize, label: usize| {
            (LONGEST_SIDE.saturating_sub(taken + GAP) / count.max(1)).saturating_sub(GAP + label)
        };
        match self.arrangement {
            Arrangement::Table => {
                let row_label = self.row_label * GLYPH * self.largest_scale() + GAP;
                (side(row_label, self.columns, 0), side(line, self.rows, 0))
            }
            Arrangement::Flow => (side(0, self.columns, 0), side(0, self.rows, self.lines * line + LABEL_GAP)),
        }
    }

    /// Images of many rows and columns are small, and so are their labels.
    fn largest_scale(&self) -> usize {
        if self.rows.max(self.columns) > 8 { 1 } else { LARGEST_SCALE }
    }

    /// Returns the column and the row of an image.
    pub(super) fn place(&self, combination: usize, copy: usize) -> (usize, usize) {
        match self.arrangement {
            Arrangement::Table => (combination % self.last, combination / self.last * self.copies + copy),
            Arrangement::Flow => {
                let at = combination * self.copies + copy;
                (at % self.columns, at / self.columns)
            }
        }
    }

    /// Places cells for images of at most this size, and the labels. `copy_labels` has one for each image of a combination.
    pub(super) fn lay_out(&self, labels: &Labels, copy_labels: &[String], image: (usize, usize)) -> Layout {
        let copy_label = |copy: usize| copy_labels.get(copy).filter(|_| self.copies > 1).cloned();
        match self.arrangement {
            Arrangement::Table => self.lay_out_table(labels, &copy_label, image),
            Arrangement::Flow => self.lay_out_flow(labels, &copy_label, image),
        }
    }

    fn lay_out_table(&self, labels: &Labels, copy_label: CopyLabel<'_>, image: (usize, usize)) -> Layout {
        let heading = |column: usize| labels.of(column).pop().unwrap_or_default();
        let headings: Vec<_> = (0..self.columns).map(heading).collect();
        let row_labels = |row: usize| -> Vec<String> {
            let mut lines = labels.of(row / self.copies * self.last);
            lines.pop();
            lines.into_iter().chain(copy_label(row % self.copies)).collect()
        };
        let rows: Vec<_> = (0..self.rows).map(row_labels).collect();
        let (scale, width) = self.scale_and_width(&headings, image.0);
        let row_width = rows.iter().flatten().map(|label| text_width(label, scale)).max().unwrap_or_default();
        let row_width = row_width.min(self.row_label * GLYPH * scale);
        let lines = rows.iter().map(Vec::len).max().unwrap_or_default();
        let margin = if row_width > 0 { row_width + 2 * GAP } else { GAP };
        let mut layout = Layout {
            cell_size: (width, image.1.max(lines * line_height(scale))),
            scale,
            origin: (margin, GAP + line_height(scale)),
            label_height: 0,
            size: (0, 0),
            texts: Vec::new(),
        };
        for (column, heading) in headings.iter().enumerate() {
            layout.add_text(heading, width, (layout.cell((column, 0)).0, GAP));
        }
        for (row, lines) in rows.iter().enumerate() {
            for (line, label) in lines.iter().enumerate() {
                let y = layout.cell((0, row)).1 + line * line_height(scale);
                layout.add_text(label, row_width, (GAP, y));
            }
        }
        layout.size = layout.cell((self.columns, self.rows));
        layout
    }

    fn lay_out_flow(&self, labels: &Labels, copy_label: CopyLabel<'_>, image: (usize, usize)) -> Layout {
        let images =
            (0..labels.combinations()).flat_map(|combination| (0..self.copies).map(move |copy| (combination, copy)));
        let cells: Vec<_> = images
            .map(|(combination, copy)| {
                let lines: Vec<_> = labels.of(combination).into_iter().chain(copy_label(copy)).collect();
                (self.place(combination, copy), lines)
            })
            .collect();
        let all: Vec<_> = cells.iter().flat_map(|(_, lines)| lines.clone()).collect();
        let (scale, width) = self.scale_and_width(&all, image.0);
        let lines_height = self.lines * line_height(scale);
        let label_height = LABEL_GAP + lines_height;
        let mut layout = Layout {
            cell_size: (width, image.1),
            scale,
            origin: (GAP, GAP + label_height),
            label_height,
            size: (0, 0),
            texts: Vec::new(),
        };
        for (place, lines) in &cells {
            let (x, y) = layout.cell(*place);
            for (line, label) in lines.iter().enumerate() {
                layout.add_text(label, width, (x, y - lines_height + line * line_height(scale)));
            }
        }
        let (width, height) = layout.cell((self.columns, self.rows));
        layout.size = (width, height - label_height);
        layout
    }

    /// The largest scale at which the labels of images of this width are no wider than these, and the width of a column,
    /// which holds the longest label if there is room.
    fn scale_and_width(&self, labels: &[String], image_width: usize) -> (usize, usize) {
        let longest = labels.iter().map(|label| text_width(label, 1)).max().unwrap_or_default();
        let scale = (image_width / longest.max(1)).clamp(1, self.largest_scale());
        (scale, image_width.max((longest * scale).min(self.largest_cell().0)))
    }
}

/// Returns the label of an image by its number among those of its combination, if there are several.
type CopyLabel<'a> = &'a dyn Fn(usize) -> Option<String>;

/// The height of a line of text with the space below it.
fn line_height(scale: usize) -> usize {
    GLYPH * scale + GAP
}

/// The pixels of a sheet's cells and labels.
pub(super) struct Layout {
    pub(super) size: (usize, usize),
    pub(super) cell_size: (usize, usize),
    /// The scale of the text.
    pub(super) scale: usize,
    pub(super) texts: Vec<Text>,
    /// The first cell's image.
    origin: (usize, usize),
    /// The height of the labels above each image.
    label_height: usize,
}

/// A line of text and its top left corner.
pub(super) struct Text {
    pub(super) text: String,
    pub(super) at: (usize, usize),
}

impl Layout {
    /// Returns the top left corner of the image in a column and a row.
    pub(super) fn cell(&self, (column, row): (usize, usize)) -> (usize, usize) {
        let step = (self.cell_size.0 + GAP, self.cell_size.1 + GAP + self.label_height);
        (self.origin.0 + column * step.0, self.origin.1 + row * step.1)
    }

    fn add_text(&mut self, text: &str, width: usize, at: (usize, usize)) {
        self.texts.push(Text { text: shorten(text, width, self.scale), at });
    }
}
