//! The SVG image: a legend above three panels side by side, all over the steps.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Curve;
use super::axis::{PlotAxis, Scale};
use crate::error::{Error, Result};

const WIDTH: u32 = 1260;
const PANELS: u32 = 400;
const MARGIN: i32 = 14;
const TITLE: i32 = 34;
const LEGEND_LINE: i32 = 24;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(60, 60, 60);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// The color-blind-safe palette of Okabe and Ito, without yellow, which is hard to see on white.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];

/// The maximum number of evaluations of a curve with a dot at each of them.
const MAX_DOTS: usize = 64;

/// One panel: its title, the scale of its axis, and the values of a curve that it shows.
struct Panel {
    title: &'static str,
    scale: Scale,
    values: fn(&Curve) -> Vec<f64>,
}

const ALL: [Panel; 3] = [
    Panel { title: "timestep", scale: Scale::Linear, values: |curve| curve.timesteps.clone() },
    Panel { title: "sigma (noise / image)", scale: Scale::Log, values: |curve| curve.sigmas.clone() },
    Panel {
        title: "signal-to-noise ratio, dB",
        scale: Scale::Linear,
        values: |curve| curve.snr.iter().map(|snr| 10.0 * snr.log10()).collect(),
    },
];

/// Draws the curves as an SVG image: timesteps, sigmas (on a logarithmic axis) and signal-to-noise ratios (in dB) over
/// the steps, with a legend. Infinite values are triangles at the edge of the panel.
///
/// # Errors
/// [`Error::Io`] if drawing fails, for which there is no known cause.
pub fn svg(title: &str, curves: &[Curve]) -> Result<String> {
    let mut text = String::new();
    draw(&mut text, title, curves)
        .map_err(|error| Error::io("the image", "drawing", std::io::Error::other(error.to_string())))?;
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawResult = Result<(), Box<dyn std::error::Error>>;

fn draw(text: &mut String, title: &str, curves: &[Curve]) -> DrawResult {
    let entries = layout_legend(curves);
    let lines = entries.iter().map(|(_, line, _)| line + 1).max().unwrap_or(0);
    let head = TITLE + LEGEND_LINE * lines + MARGIN;
    let root = SVGBackend::with_string(text, (WIDTH, head as u32 + PANELS)).into_drawing_area();
    root.fill(&WHITE)?;
    let (top, bottom) = root.split_vertically(head);
    top.draw(&Text::new(title.to_owned(), (MARGIN, 10), (FONT, 20).into_font().color(&INK)))?;
    for (i, (x, line, name)) in entries.into_iter().enumerate() {
        let y = TITLE + LEGEND_LINE * line + LEGEND_LINE / 2;
        top.draw(&PathElement::new([(x, y), (x + 26, y)], color(i).stroke_width(2)))?;
        top.draw(&Circle::new((x + 13, y), 4, dot(i)))?;
        top.draw(&Text::new(name, (x + 34, y - 8), (FONT, 17).into_font().color(&INK)))?;
    }
    for (panel, area) in ALL.iter().zip(bottom.split_evenly((1, ALL.len()))) {
        draw_panel(panel, &area, curves)?;
    }
    root.present()?;
    Ok(())
}

/// Lays out the legend: the x coordinate and line of each name.
fn layout_legend(curves: &[Curve]) -> Vec<(i32, i32, String)> {
    let (mut x, mut line) = (MARGIN, 0);
    let mut entries = Vec::new();
    for curve in curves {
        // Fonts are not available here; the width of a letter is a generous estimate.
        let width = 60 + 9 * curve.name.chars().count() as i32;
        if x > MARGIN && x + width > WIDTH as i32 {
            (x, line) = (MARGIN, line + 1);
        }
        entries.push((x, line, curve.name.clone()));
        x += width;
    }
    entries
}

fn draw_panel(panel: &Panel, area: &Area<'_>, curves: &[Curve]) -> DrawResult {
    let coordinates = |curve: &Curve| (panel.values)(curve).into_iter().map(|value| panel.scale.coordinate(value));
    let y = PlotAxis::over(curves.iter().flat_map(coordinates), panel.scale);
    let last = curves.iter().flat_map(|curve| &curve.positions).copied().fold(1.0, f64::max);
    let x = PlotAxis::over_steps(last);
    let (low, high) = (y.low, y.high);
    let mut chart = ChartBuilder::on(area)
        .margin(MARGIN)
        .caption(panel.title, (FONT, 18).into_font().color(&INK))
        .x_label_area_size(44)
        .y_label_area_size(52)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .axis_style(INK)
        .bold_line_style(GRID)
        .label_style((FONT, 16).into_font().color(&INK))
        .axis_desc_style((FONT, 16).into_font().color(&INK))
        .x_desc("step")
        .draw()?;
    let paths: Vec<Path> = curves.iter().map(|curve| path(curve, coordinates(curve))).collect();
    for (i, points) in paths.iter().enumerate() {
        // A curve that later curves cover is drawn wider, so that it shows on both sides of them.
        let wider = paths[i + 1..].iter().filter(|later| overlaps(points, later, 0.01 * (high - low))).count().min(3);
        let within = points.iter().map(|(at, value)| (*at, value.clamp(low, high)));
        chart.draw_series(LineSeries::new(within, color(i).stroke_width(2 + 3 * wider as u32)))?;
        let infinite = points.iter().filter(|(_, value)| value.is_infinite());
        chart.draw_series(infinite.map(|(at, value)| {
            let (edge, size) = if *value > 0.0 { (high, 6) } else { (low, -6) };
            TriangleMarker::new((*at, edge), size, color(i).filled())
        }))?;
        if points.len() <= MAX_DOTS {
            let finite = points.iter().filter(|(_, value)| value.is_finite());
            chart.draw_series(finite.map(|point| Circle::new(*point, 3 + 2 * wider as i32, dot(i))))?;
        }
    }
    Ok(())
}

/// The points of a curve in one panel.
type Path = Vec<(f64, f64)>;

fn path(curve: &Curve, coordinates: impl Iterator<Item = f64>) -> Path {
    curve.positions.iter().copied().zip(coordinates).filter(|(_, value)| !value.is_nan()).collect()
}

/// Returns true if two curves are closer than `tolerance` at half of their evaluations or more.
fn overlaps(one: &Path, other: &Path, tolerance: f64) -> bool {
    let close = |((at, value), (other_at, other)): &(&(f64, f64), &(f64, f64))| {
        (at - other_at).abs() < 1e-9 && (value - other).abs() < tolerance
    };
    one.len() == other.len() && 2 * one.iter().zip(other).filter(close).count() >= one.len()
}

fn color(curve: usize) -> RGBColor {
    COLORS[curve % COLORS.len()]
}

/// Returns the style of a dot: filled, or hollow for every second cycle through the colors.
fn dot(curve: usize) -> ShapeStyle {
    if (curve / COLORS.len()).is_multiple_of(2) { color(curve).filled() } else { color(curve).stroke_width(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::{self, Config, ScheduleRequest};

    #[test]
    fn every_scheduler_is_drawn_and_named() {
        let curves: Vec<Curve> = scheduler::table()
            .iter()
            .map(|entry| {
                let scheduler =
                    scheduler::build(entry.name, None, &Config::new(), &ScheduleRequest::new(9, 1)).unwrap();
                Curve::from_scheduler(entry.name, scheduler.as_ref(), 9)
            })
            .collect();
        let image = svg("a < b & c", &curves).unwrap();
        assert!(curves.iter().all(|curve| image.contains(&curve.name)), "{image}");
        assert!(image.contains("a &lt; b &amp; c"), "{image}");
        assert!(image.matches("<polyline").count() >= 4 * curves.len(), "{image}");
        assert!(!image.contains("NaN") && !image.contains("inf"), "{image}");
    }

    #[test]
    fn a_long_legend_wraps() {
        let curve = |name: &str| Curve {
            name: name.to_owned(),
            positions: vec![0.0],
            timesteps: vec![1.0],
            sigmas: vec![f64::INFINITY],
            snr: vec![0.0],
        };
        let names = ["a name of many letters that goes on and on"; 4].map(curve);
        let lines: Vec<i32> = layout_legend(&names).into_iter().map(|(_, line, _)| line).collect();
        assert_eq!(lines, [0, 0, 1, 1]);
        assert!(svg("", &names).is_ok());
        assert!(svg("", &[]).is_ok());
    }
}
