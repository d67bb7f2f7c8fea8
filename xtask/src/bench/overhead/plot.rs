//! The results as a picture: each row's CPU/request ratio as a dot, its interval as a bar, a panel for each set.

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

use super::{super::stats::Estimate, cases::SETS, measure::Row};

const WIDTH: u32 = 900;
/// Of a row; and of a panel's title and axis beside its rows.
const LINE: u32 = 22;
const FRAME: u32 = 76;
/// Room for the rows' names.
const NAMES: u32 = 200;
const FONT: (&str, u32) = ("sans-serif", 13);

const BLUE: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
const GREY: RGBColor = RGBColor(0x55, 0x55, 0x55);
const RED: RGBColor = RGBColor(0xc0, 0x39, 0x2b);

/// What a ratio this large would leave of the others on an even axis is too little.
const LOGARITHMIC: f64 = 2.0;

pub(super) fn svg(rows: &[Row]) -> Result<String> {
    let panels: Vec<(&str, Vec<Line>)> = SETS
        .iter()
        .map(|set| (set.name, lines(rows, set.name)))
        .filter(|(_, lines)| !lines.is_empty())
        .collect();
    let heights: Vec<u32> = panels
        .iter()
        .map(|(_, lines)| lines.len() as u32 * LINE + FRAME)
        .collect();
    let mut text = String::new();
    {
        let mut rest = SVGBackend::with_string(&mut text, (WIDTH, heights.iter().sum())).into_drawing_area();
        rest.fill(&WHITE)?;
        for ((name, lines), height) in panels.iter().zip(heights) {
            let (panel, below) = rest.split_vertically(height);
            draw(&panel, name, lines).map_err(|why| anyhow!("the panel {name:?}: {why}"))?;
            rest = below;
        }
        rest.present()?;
    }
    Ok(text)
}

/// A row's name and ratio.
type Line<'a> = (&'a str, Estimate);
type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn lines<'a>(rows: &'a [Row], set: &str) -> Vec<Line<'a>> {
    rows.iter()
        .filter(|row| row.set.name == set)
        .filter_map(|row| Some((row.name.as_str(), row.cpu_ratio()?)))
        .collect()
}

fn draw(panel: &Panel, name: &str, lines: &[Line]) -> Drawn {
    let (low, high) = range(lines);
    let title = format!("{name}: CPU/request, with / without the agent");
    if high > LOGARITHMIC {
        chart(panel, &title, lines, (low..high).log_scale())
    } else {
        chart(panel, &title, lines, low..high)
    }
}

/// Of all intervals and both lines, and a little more.
fn range(lines: &[Line]) -> (f64, f64) {
    let low = lines.iter().map(|(_, ratio)| ratio.low).fold(1.0, f64::min);
    let high = lines.iter().map(|(_, ratio)| ratio.high).fold(1.01, f64::max);
    let room = 0.05 * (high - low);
    (low - room.min(low / 10.0), high + room)
}

fn chart<X>(panel: &Panel, title: &str, lines: &[Line], x: impl AsRangedCoord<CoordDescType = X, Value = f64>) -> Drawn
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let (count, range) = (lines.len() as f64, range(lines));
    let mut chart = ChartBuilder::on(panel)
        .caption(title, ("sans-serif", 16))
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
        .x_label_formatter(&|ratio| format!("{ratio:.2}"))
        .light_line_style(TRANSPARENT)
        .label_style(FONT)
        .draw()?;
    for (at, style) in [(1.0, GREY.stroke_width(1)), (1.01, RED.stroke_width(1))] {
        chart.draw_series([PathElement::new(vec![(at, 0.0), (at, count)], style)])?;
    }
    let names = FONT.into_text_style(panel).pos(Pos::new(HPos::Right, VPos::Center));
    for (line, (name, ratio)) in lines.iter().enumerate() {
        let y = line as f64 + 0.5;
        let bar = vec![(ratio.low, y), (ratio.high, y)];
        chart.draw_series([PathElement::new(bar, BLUE.stroke_width(3))])?;
        chart.draw_series([Circle::new((ratio.value, y), 5, BLUE.filled())])?;
        let at = EmptyElement::at((range.0, y)) + Text::new((*name).to_owned(), (-8, 0), names.clone());
        chart.plotting_area().draw(&at)?;
    }
    Ok(())
}
