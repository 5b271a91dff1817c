//! Sheets as they are drawn.

use font8x8::{BASIC_FONTS, UnicodeFonts};

use super::canvas::{GLYPH, shorten};
use super::grid::LONGEST_SIDE;
use super::*;

fn sheets(sweeps: &[(&str, &[&str])], copies: usize) -> ContactSheets {
    let sweep = |(key, values): &(&str, &[&str])| Sweep {
        key: (*key).to_owned(),
        values: values.iter().map(|&value| value.to_owned()).collect(),
    };
    ContactSheets::new(sweeps.iter().map(sweep).collect(), copies).expect("few images")
}

/// A sheet of images of this size, each with pixels of its own, and the images themselves.
fn drawn(sheets: &ContactSheets, (width, height): (usize, usize)) -> (Rgb8, Vec<Rgb8>) {
    let (mut cells, mut originals) = (Vec::new(), Vec::new());
    for combination in 0..sheets.labels.combinations() {
        for copy in 0..sheets.grid.copies {
            let tint = 40 + 17 * originals.len();
            let data = (0..3 * width * height).map(|at| ((at / 3 * 7 + at % 3 * tint) % 251) as u8).collect();
            let original = Rgb8::new(width, height, data).expect("an image");
            let pixels = reduce(&original, sheets.grid.largest_cell()).expect("an image");
            cells.push(Cell { combination, copy, seed: 7 + copy as u64, pixels: pixels.clone() });
            originals.push(pixels);
        }
    }
    let sheet = Sheet { prompt: String::new(), seed: 7, index: 0, cells };
    (sheets.draw(&sheet).expect("a sheet"), originals)
}

/// The part of an image at a place.
fn part(image: &Rgb8, (x, y): (usize, usize), (width, height): (usize, usize)) -> Vec<u8> {
    let row = |row: usize| &image.data()[3 * ((y + row) * image.width() + x)..][..3 * width];
    (0..height).flat_map(row).copied().collect()
}

/// The text of a line as the sheet shows it, read by comparing with the font's characters.
fn read(image: &Rgb8, (x, y): (usize, usize), scale: usize, length: usize) -> String {
    let is_black = |x: usize, y: usize| image.data()[3 * (y * image.width() + x)] == 0;
    let character = |at: usize| {
        let left = x + at * GLYPH * scale;
        let bits: [u8; GLYPH] = std::array::from_fn(|row| {
            (0..GLYPH).filter(|column| is_black(left + column * scale, y + row * scale)).map(|column| 1 << column).sum()
        });
        (' '..='~').find(|&known| BASIC_FONTS.get(known) == Some(bits)).unwrap_or('\u{fffd}')
    };
    (0..length).map(character).collect()
}

/// Requires that every image and every label of a sheet is drawn where the layout places it.
fn require_drawn(sheets: &ContactSheets, size: (usize, usize), labels: &[&str]) -> Rgb8 {
    let (sheet, images) = drawn(sheets, size);
    assert!(sheet.width().max(sheet.height()) <= LONGEST_SIDE, "{}×{}", sheet.width(), sheet.height());
    let seeds: Vec<_> = (0..sheets.grid.copies).map(|copy| format!("seed = {}", 7 + copy)).collect();
    let image = (images[0].width(), images[0].height());
    let layout = sheets.grid.lay_out(&sheets.labels, &seeds, image);
    for (at, pixels) in images.iter().enumerate() {
        let place = sheets.grid.place(at / sheets.grid.copies, at % sheets.grid.copies);
        assert!(part(&sheet, layout.cell(place), image) == pixels.data(), "image {at} is not in {place:?}");
    }
    let texts = layout.texts.iter().map(|text| read(&sheet, text.at, layout.scale, text.text.chars().count()));
    assert_eq!(texts.collect::<Vec<_>>(), labels);
    sheet
}

#[test]
fn two_sweeps_are_rows_and_columns() {
    let sheets = sheets(&[("scheduler", &["euler", "unipc"]), ("guidance_scale", &["5", "7.5", "9"])], 1);
    let labels =
        ["guidance_scale = 5", "guidance_scale = 7.5", "guidance_scale = 9", "scheduler = euler", "scheduler = unipc"];
    require_drawn(&sheets, (64, 48), &labels);
    // Large images are reduced, and their labels grow.
    let (width, height) = sheets.grid.largest_cell();
    let large = require_drawn(&sheets, (1600, 800), &labels);
    assert!(large.width() > LONGEST_SIDE * 3 / 4 && width > height / 2, "{}", large.width());
}

#[test]
fn one_sweep_is_a_row_and_several_images_are_rows_below_each_other() {
    let one = sheets(&[("steps", &["4", "8"])], 1);
    assert_eq!((one.grid.columns, one.grid.rows), (2, 1));
    require_drawn(&one, (64, 64), &["steps = 4", "steps = 8"]);
    let several = sheets(&[("steps", &["4", "8"])], 2);
    assert_eq!((several.grid.columns, several.grid.rows), (2, 2));
    require_drawn(&several, (64, 64), &["steps = 4", "steps = 8", "seed = 7", "seed = 8"]);
    let both = sheets(&[("scheduler", &["ddim", "lcm"]), ("steps", &["4"])], 2);
    let rows = ["scheduler = ddim", "seed = 7", "scheduler = ddim", "seed = 8"];
    let more = ["scheduler = lcm", "seed = 7", "scheduler = lcm", "seed = 8"];
    require_drawn(&both, (64, 64), &[&["steps = 4"][..], &rows, &more].concat());
}

#[test]
fn three_sweeps_flow_and_each_image_has_all_its_labels() {
    let sheets = sheets(&[("steps", &["4"]), ("scheduler", &["ddim", "lcm"]), ("width", &["64", "32"])], 1);
    assert_eq!((sheets.grid.columns, sheets.grid.rows), (2, 2));
    let label = |scheduler, width| ["steps = 4", scheduler, width];
    let labels = [
        label("scheduler = ddim", "width = 64"),
        label("scheduler = ddim", "width = 32"),
        label("scheduler = lcm", "width = 64"),
        label("scheduler = lcm", "width = 32"),
    ];
    require_drawn(&sheets, (64, 64), &labels.concat());
}

#[test]
fn long_rows_flow_and_too_many_images_have_no_sheet() {
    let values: Vec<_> = (0..100).map(|value| value.to_string()).collect();
    let sweep = || Sweep { key: "steps".to_owned(), values: values.clone() };
    let row = ContactSheets::new(vec![sweep()], 1).expect("a sheet");
    assert_eq!((row.grid.columns, row.grid.rows), (10, 10));
    let labels: Vec<_> = values.iter().map(|value| format!("steps = {value}")).collect();
    require_drawn(&row, (48, 48), &labels.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(ContactSheets::new(vec![sweep(), sweep()], 1).is_none());
}

#[test]
fn seeds_that_differ_are_numbers() {
    let pixels = Rgb8::new(1, 1, vec![0; 3]).expect("an image");
    let cell = |copy, seed| Cell { combination: 0, copy, seed, pixels: pixels.clone() };
    let cells = vec![cell(0, 3), cell(0, 3), cell(1, 4), cell(1, 5)];
    let sheet = Sheet { prompt: String::new(), seed: 3, index: 0, cells };
    assert_eq!([sheet.copy_label(0), sheet.copy_label(1)], ["seed = 3", "image = 2"]);
}

#[test]
fn long_labels_are_shortened_and_unknown_characters_are_marked() {
    assert_eq!(shorten("scheduler = unipc", 10 * GLYPH, 1), "schedule..");
    assert_eq!(shorten("scheduler", 9 * GLYPH * 2, 2), "scheduler");
    assert_eq!(shorten("scheduler", GLYPH, 1), ".");
    let mut canvas = Canvas::new((4 * GLYPH, GLYPH));
    canvas.text("a\u{4e2d}é", (0, 0), 1);
    let image = canvas.into_image().expect("an image");
    assert_eq!(read(&image, (0, 0), 1, 2), "a?");
}
