//! Results as pictures, SVG: figures with their intervals, a panel for each group, and curves.

use anyhow::{Result, anyhow};
use plotters::{
    coord::{
        Shift,
        ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
        types::RangedCoordf64,
    },
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::stats::Estimate;

const WIDTH: u32 = 900;
const HEIGHT: u32 = 420;
/// Of a row; and of a panel's title and axis beside its rows.
const LINE: u32 = 22;
const FRAME: u32 = 76;
/// Room for the rows' names, and for the numbers of an axis.
const NAMES: u32 = 200;
const NUMBERS: u32 = 64;
const FONT: (&str, u32) = ("sans-serif", 13);
const TITLE: (&str, u32) = ("sans-serif", 16);

const BLUE: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
const ORANGE: RGBColor = RGBColor(0xd9, 0x7b, 0x16);
const GREEN: RGBColor = RGBColor(0x2e, 0x8b, 0x57);
const GREY: RGBColor = RGBColor(0x55, 0x55, 0x55);
const RED: RGBColor = RGBColor(0xc0, 0x39, 0x2b);

/// Figures that are further apart leave too little of the small ones on an even axis.
const LOGARITHMIC: f64 = 2.0;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Figures side by side.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) rows: Vec<(String, Estimate)>,
    /// What they are to be compared with: a grey line.
    pub(super) even: Option<f64>,
    /// What they are to keep to: a red line.
    pub(super) bar: Option<f64>,
}

/// Each row's figure as a dot, its interval as a line.
pub(super) fn panels(panels: &[Panel]) -> Result<String> {
    let panels: Vec<&Panel> = panels.iter().filter(|panel| !panel.rows.is_empty()).collect();
    let height = |panel: &&Panel| panel.rows.len() as u32 * LINE + FRAME;
    let mut text = String::new();
    {
        let whole = panels.iter().map(height).sum::<u32>().max(1);
        let mut rest = SVGBackend::with_string(&mut text, (WIDTH, whole)).into_drawing_area();
        rest.fill(&WHITE)?;
        for panel in panels {
            let (area, below) = rest.split_vertically(height(&panel));
            draw(&area, panel).map_err(|why| anyhow!("the panel {:?}: {why}", panel.title))?;
            rest = below;
        }
        rest.present()?;
    }
    Ok(text)
}

fn draw(area: &Area, panel: &Panel) -> Drawn {
    let (low, high) = panel.range();
    if low > 0.0 && high / low > LOGARITHMIC {
        chart(area, panel, (low..high).log_scale())
    } else {
        chart(area, panel, low..high)
    }
}

impl Panel {
    /// Of all intervals and both lines, and a little more.
    fn range(&self) -> (f64, f64) {
        let marks = || self.even.into_iter().chain(self.bar);
        let rows = || self.rows.iter().map(|(_, figure)| figure);
        let low = rows()
            .map(|figure| figure.low)
            .chain(marks())
            .fold(f64::INFINITY, f64::min);
        let high = rows()
            .map(|figure| figure.high)
            .chain(marks())
            .fold(f64::NEG_INFINITY, f64::max);
        let room = 0.05 * (high - low).max(high.abs() / 100.0);
        (low - room.min(low.abs() / 10.0), high + room)
    }

    /// Digits behind the point that tell figures apart.
    fn digits(&self) -> usize {
        let (low, high) = self.range();
        if high - low < 10.0 { 2 } else { 0 }
    }
}

fn chart<X>(area: &Area, panel: &Panel, x: impl AsRangedCoord<CoordDescType = X, Value = f64>) -> Drawn
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let (count, range, digits) = (panel.rows.len() as f64, panel.range(), panel.digits());
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, TITLE)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(x, RangedCoordf64::from(count..0.0))?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .x_labels(9)
        .x_label_formatter(&|figure| format!("{figure:.digits$}"))
        .light_line_style(TRANSPARENT)
        .label_style(FONT)
        .draw()?;
    for (at, colour) in [(panel.even, GREY), (panel.bar, RED)] {
        let line = at.map(|at| PathElement::new(vec![(at, 0.0), (at, count)], colour.stroke_width(1)));
        chart.draw_series(line)?;
    }
    let names = FONT.into_text_style(area).pos(Pos::new(HPos::Right, VPos::Center));
    for (row, (name, figure)) in panel.rows.iter().enumerate() {
        let y = row as f64 + 0.5;
        let interval = vec![(figure.low, y), (figure.high, y)];
        chart.draw_series([PathElement::new(interval, BLUE.stroke_width(3))])?;
        chart.draw_series([Circle::new((figure.value, y), 5, BLUE.filled())])?;
        let at = EmptyElement::at((range.0, y)) + Text::new(name.clone(), (-8, 0), names.clone());
        chart.plotting_area().draw(&at)?;
    }
    Ok(())
}

/// Measured points over what was varied.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// What the axes are, with their units.
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    pub(super) curves: Vec<Curve<'a>>,
    /// What they are to keep to: a red line.
    pub(super) bar: Option<f64>,
    /// Both axes by powers of ten; points at 0 are left out then.
    pub(super) logarithmic: bool,
}

pub(super) struct Curve<'a> {
    pub(super) name: &'a str,
    pub(super) points: Vec<(f64, f64)>,
    /// By a line.
    pub(super) joined: bool,
}

impl<'a> Curve<'a> {
    /// Points that a line joins.
    pub(super) fn line(name: &'a str, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self {
            name,
            points: points.into_iter().collect(),
            joined: true,
        }
    }
}

pub(super) fn chart_of(chart: &Chart) -> Result<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
        area.fill(&WHITE)?;
        curves(&area, chart).map_err(|why| anyhow!("the chart {:?}: {why}", chart.title))?;
        area.present()?;
    }
    Ok(text)
}

fn curves(area: &Area, chart: &Chart) -> Drawn {
    let points = || chart.curves.iter().flat_map(|curve| &curve.points);
    let x = reach(points().map(|point| point.0), chart.logarithmic);
    let y = reach(points().map(|point| point.1).chain(chart.bar), chart.logarithmic);
    if chart.logarithmic {
        drawn(area, chart, x, (x.0..x.1).log_scale(), (y.0..y.1).log_scale())
    } else {
        drawn(area, chart, x, x.0..x.1, y.0..y.1)
    }
}

/// An axis that all figures are on; an even one begins at 0.
fn reach(figures: impl Iterator<Item = f64>, logarithmic: bool) -> (f64, f64) {
    let figures = figures.filter(|figure| figure.is_finite() && (!logarithmic || *figure > 0.0));
    let (low, high) = figures.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), figure| {
        (low.min(figure), high.max(figure))
    });
    match (low.is_finite(), logarithmic) {
        (false, _) => (0.1, 1.0),
        (true, true) => (low / 1.3, high * 1.3),
        (true, false) => (low.min(0.0), if high > 0.0 { high * 1.1 } else { 1.0 }),
    }
}

fn drawn<X, Y>(
    area: &Area,
    of: &Chart,
    reach: (f64, f64),
    x: impl AsRangedCoord<CoordDescType = X, Value = f64>,
    y: impl AsRangedCoord<CoordDescType = Y, Value = f64>,
) -> Drawn
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .caption(of.title, TITLE)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(NUMBERS)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(of.x)
        .y_desc(of.y)
        .x_label_formatter(&|figure| number(*figure))
        .y_label_formatter(&|figure| number(*figure))
        .light_line_style(TRANSPARENT)
        .label_style(FONT)
        .draw()?;
    if let Some(bar) = of.bar {
        let line = PathElement::new(vec![(reach.0, bar), (reach.1, bar)], RED.stroke_width(1));
        chart.draw_series([line])?;
    }
    for (curve, colour) in of.curves.iter().zip([BLUE, ORANGE, GREEN, GREY].into_iter().cycle()) {
        let shown = |point: &&(f64, f64)| !of.logarithmic || (point.0 > 0.0 && point.1 > 0.0);
        let points: Vec<(f64, f64)> = curve.points.iter().filter(shown).copied().collect();
        if curve.joined {
            chart.draw_series([PathElement::new(points.clone(), colour.stroke_width(2))])?;
        }
        let size = if points.len() > 60 { 1 } else { 4 };
        chart
            .draw_series(
                points
                    .into_iter()
                    .map(|point| Circle::new(point, size, colour.filled())),
            )?
            .label(curve.name)
            .legend(move |(x, y)| Circle::new((x + 10, y), 4, colour.filled()));
    }
    if of.curves.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(GREY)
            .label_font(FONT)
            .draw()?;
    }
    Ok(())
}

/// As people write it: 1.5M, 20k, 0.25.
fn number(figure: f64) -> String {
    let short = |figure: f64| {
        let text = format!("{figure:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match figure.abs() {
        1e6.. => format!("{}M", short(figure / 1e6)),
        1e3.. => format!("{}k", short(figure / 1e3)),
        _ => short(figure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 0.25, 3.0, 950.0, 1e3, 12_500.0, 2.4e7].map(number);
        assert_eq!(numbers, ["0", "0.25", "3", "950", "1k", "12.5k", "24M"]);
    }

    /// The numbers in an attribute of each element of a kind, in the order they are drawn.
    fn pixels(svg: &str, element: &str, attribute: &str) -> Vec<Vec<i32>> {
        let (element, attribute) = (format!("<{element} "), format!(" {attribute}=\""));
        svg.lines()
            .filter(|line| line.starts_with(&element))
            .filter_map(|line| line.split_once(&attribute)?.1.split('"').next())
            .map(|text| text.split([' ', ',']).filter_map(|part| part.parse().ok()).collect())
            .collect()
    }

    #[test]
    fn each_row_has_its_name_its_value_and_its_interval() {
        let rows = [("less", 0.9), ("even", 1.0), ("more", 1.1)].map(|(name, value)| {
            let (low, high) = (value - 0.1, value + 0.1);
            (name.to_owned(), Estimate { value, low, high })
        });
        let panel = Panel {
            title: "cost".to_owned(),
            rows: rows.to_vec(),
            even: Some(1.0),
            bar: None,
        };
        let svg = panels(&[panel]).unwrap();
        let lines: Vec<&str> = svg.lines().collect();
        let paths = pixels(&svg, "polyline", "points");
        let (x, y) = (
            pixels(&svg, "circle", "cx").concat(),
            pixels(&svg, "circle", "cy").concat(),
        );
        let [tenth, next] = [x[1] - x[0], x[2] - x[1]];
        assert!(tenth > 100 && (tenth - next).abs() <= 1, "{svg}");
        for (row, (name, _)) in rows.iter().enumerate() {
            let height = format!(" y=\"{}\"", y[row]);
            let is_name = |pair: &[&str]| pair[0].contains(&height) && pair[1] == name;
            assert!(lines.windows(2).any(is_name), "{name}: {svg}");
            let interval = [x[row] - tenth, y[row], x[row] + tenth, y[row]];
            let is_interval = |path: &Vec<i32>| path.iter().zip(interval).all(|(at, end)| (at - end).abs() <= 1);
            assert!(paths.iter().any(is_interval), "{name}: {svg}");
        }
        // The grey line, which is longer than an axis' marks, goes through the dot at 1.
        let is_even = |path: &Vec<i32>| path[0] == x[1] && path[2] == x[1] && path[1].abs_diff(path[3]) > 2 * LINE;
        assert!(paths.iter().any(is_even), "{svg}");
    }

    #[test]
    fn every_row_and_curve_is_in_the_picture() {
        let row = |name: &str, value: f64| {
            let figure = Estimate {
                value,
                low: value * 0.9,
                high: value * 1.1,
            };
            (name.to_owned(), figure)
        };
        let panel = Panel {
            title: "cost".to_owned(),
            rows: vec![row("small", 1.0), row("large", 17.0)],
            even: Some(1.0),
            bar: Some(1.01),
        };
        let svg = panels(&[panel]).unwrap();
        for text in ["cost", "small", "large"] {
            assert!(svg.contains(text), "{svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 2, "{svg}");
        for (logarithmic, shown) in [(false, 4), (true, 3)] {
            let chart = Chart {
                title: "rates",
                x: "asked",
                y: "had",
                curves: vec![
                    Curve::line("written", [(1.0, 1.0), (1e6, 9e5)]),
                    Curve::line("lost", [(1.0, 0.0), (1e6, 5.0)]),
                ],
                bar: Some(3e6),
                logarithmic,
            };
            let svg = chart_of(&chart).unwrap();
            // One more for each curve's name.
            assert_eq!(svg.matches("<circle").count(), shown + 2, "{svg}");
        }
    }
}
