//! Line charts as SVG. They are readable without scripts and scale to the width of the page.

use std::fmt::Write;

use serde_json::json;

use super::markup::escape;
use super::scale::{Scale, number};

/// Size of the drawing and its margins, in units of its view box.
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;
/// Approximate width of a digit of a label.
const DIGIT: f64 = 7.0;

/// Number of line colors of a chart.
pub(crate) const MOST_LINES: usize = 4;

/// Maximum number of points of a line. Longer lines are reduced by averaging neighboring points.
const MAX_POINTS: usize = 300;

/// One line of a chart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Points (x, y) in ascending order of x. A non-finite y leaves a gap in the line.
    pub points: Vec<(f64, f64)>,
    /// Vertical bars (x, lowest y, highest y), such as the range of several runs.
    pub ranges: Vec<(f64, f64, f64)>,
}

/// One chart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chart {
    /// Heading.
    pub title: String,
    /// A sentence under the heading: the unit, or how to read the chart.
    pub note: String,
    /// Label of the x axis.
    pub x_label: String,
    /// The lines, at most four: there are colors for no more.
    pub series: Vec<Series>,
    /// Names and y values of dashed horizontal lines.
    pub guides: Vec<(String, f64)>,
    /// A shaded band from a lower to an upper y value.
    pub band: Option<(f64, f64)>,
    /// Whether the y axis begins at 0.
    pub from_zero: bool,
    /// Whether the x values are base-2 logarithms; the ticks are then labeled with `2^x`.
    pub x_is_log2: bool,
    /// Ticks of the x axis; empty for round values.
    pub x_ticks: Vec<f64>,
}

/// Colors and line styles of a standalone drawing, which match the style sheet of the page.
const STYLE: &str = include_str!("figure.css");
/// Height of the title, note, and legend above a standalone drawing.
const HEAD: f64 = 58.0;

/// Draws charts side by side as one SVG image; charts without a finite point are omitted.
pub fn svg_of(charts: &[Chart]) -> String {
    let drawn: Vec<String> = charts.iter().filter_map(Chart::to_svg).collect();
    let (width, height) = (WIDTH * drawn.len() as f64, HEIGHT + HEAD);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\">\n<style>\n{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    for (i, drawing) in drawn.iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate({},0)\">\n{drawing}</g>", WIDTH * i as f64);
    }
    svg + "</svg>\n"
}

impl Chart {
    /// Draws the chart as an HTML figure; `None` if no line has a finite point.
    pub fn to_html(&self) -> Option<String> {
        let (series, plot) = self.plot()?;
        Some(self.figure(&series, &self.drawing(&series, &plot), &plot))
    }

    /// Draws the chart with its title and legend as a part of an SVG image; `None` if no line has a
    /// finite point.
    fn to_svg(&self) -> Option<String> {
        let (series, plot) = self.plot()?;
        let mut svg = format!(
            "<text x=\"{LEFT}\" y=\"18\" class=\"title\">{}</text>\
             <text x=\"{LEFT}\" y=\"34\">{}</text>\n",
            escape(&self.title),
            escape(&self.note)
        );
        let mut x = LEFT;
        for (i, series) in series.iter().enumerate() {
            let _ = writeln!(
                svg,
                "<path class=\"line s{}\" d=\"M{x:.1} 47h16\"/><text x=\"{:.1}\" y=\"51\">{}</text>",
                i + 1,
                x + 21.0,
                escape(&series.name)
            );
            x += 40.0 + 6.6 * series.name.chars().count() as f64;
        }
        let drawing = self.drawing(&series, &plot);
        let _ = writeln!(svg, "<g transform=\"translate(0,{HEAD})\">\n{drawing}</g>");
        Some(svg)
    }

    /// Returns the reduced lines and the scales of the axes; `None` if no line has a finite point.
    fn plot(&self) -> Option<(Vec<Series>, Plot)> {
        let series: Vec<Series> = self.series.iter().map(thinned).collect();
        let points = || series.iter().flat_map(|s| &s.points);
        if !points().any(|(_, y)| y.is_finite()) {
            return None;
        }
        let guides = self.guides.iter().map(|(_, y)| *y);
        let band = self.band.into_iter().flat_map(|(low, high)| [low, high]);
        let zero = self.from_zero.then_some(0.0);
        let ranges = series.iter().flat_map(|s| &s.ranges).flat_map(|r| [r.1, r.2]);
        let ys = points().map(|p| p.1).chain(ranges).chain(guides).chain(band).chain(zero);
        // Guides need a larger margin, for their names.
        let mut y = Scale::around(ys, if self.guides.is_empty() { 0.06 } else { 0.1 });
        if self.from_zero {
            y.low = y.low.max(0.0);
        }
        let mut x = Scale::around(points().map(|p| p.0), 0.0);
        if x.low > 0.0 && x.low < 0.1 * x.high {
            x.low = 0.0;
        }
        let x_is_log2 = self.x_is_log2;
        Some((series, Plot { x, y, x_is_log2 }))
    }

    fn drawing(&self, series: &[Series], plot: &Plot) -> String {
        let ticks = match self.x_ticks.as_slice() {
            [] => plot.x.ticks(6),
            ticks => ticks.iter().map(|&x| (x, number(x))).collect(),
        };
        let mut svg = plot.axes(&self.x_label, ticks);
        if let Some(band) = self.band {
            plot.band(&mut svg, band);
        }
        for guide in &self.guides {
            plot.guide(&mut svg, guide, &self.guides, series);
        }
        for (i, series) in series.iter().enumerate() {
            plot.line(&mut svg, series, i + 1);
        }
        svg
    }

    fn figure(&self, series: &[Series], svg: &str, plot: &Plot) -> String {
        let mut legend = String::new();
        for (i, series) in series.iter().enumerate() {
            let last =
                series.points.iter().rev().find(|p| p.1.is_finite()).map_or(f64::NAN, |p| p.1);
            let _ = write!(
                legend,
                "<span class=\"key k{}\">{} <b>{}</b></span>",
                i + 1,
                escape(&series.name),
                number(last)
            );
        }
        let title = escape(&self.title);
        let note = match self.note.as_str() {
            "" => String::new(),
            note => format!("<p class=\"note\">{}</p>", escape(note)),
        };
        format!(
            "<figure class=\"chart\"><h3>{title}</h3>{note}<div class=\"legend\">{legend}</div>\n\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\" \
             data-points=\"{}\">\n{svg}</svg></figure>\n",
            escape(&plot.data(series))
        )
    }
}

/// The plot area, which maps values to positions in the drawing.
struct Plot {
    x: Scale,
    y: Scale,
    x_is_log2: bool,
}

impl Plot {
    fn left(&self, x: f64) -> f64 {
        LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT)
    }

    fn top(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - TOP - BOTTOM)
    }

    fn axes(&self, x_label: &str, x_ticks: Vec<(f64, String)>) -> String {
        let mut svg = String::new();
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in self.y.ticks(6) {
            let y = self.top(value);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{label}</text>",
                LEFT - 7.0,
                y + 4.0
            );
        }
        for (value, label) in x_ticks {
            let x = self.left(value);
            let label = if self.x_is_log2 { number(value.exp2()) } else { label };
            // The last label must not extend beyond the drawing.
            let cut = x + 0.5 * DIGIT * label.chars().count() as f64 > WIDTH;
            let (at, anchor) = if cut { (WIDTH, "end") } else { (x, "middle") };
            let _ = writeln!(
                svg,
                "<path class=\"tick\" d=\"M{x:.1} {bottom}v4\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" class=\"{anchor}\">{label}</text>",
                bottom + 16.0
            );
        }
        let _ = writeln!(
            svg,
            "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>\
             <text x=\"{right}\" y=\"{:.1}\" class=\"end label\">{}</text>",
            HEIGHT - 3.0,
            escape(x_label)
        );
        svg
    }

    fn band(&self, svg: &mut String, (low, high): (f64, f64)) {
        let (y, bottom) = (self.top(high), self.top(low));
        let _ = writeln!(
            svg,
            "<rect class=\"band\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            WIDTH - LEFT - RIGHT,
            bottom - y
        );
    }

    /// Draws a dashed line. Its name is placed at the end where the lines of the chart are farther
    /// away, above the guide unless another guide or the frame is in the way.
    fn guide(
        &self,
        svg: &mut String,
        (name, value): &(String, f64),
        guides: &[(String, f64)],
        series: &[Series],
    ) {
        let y = self.top(*value);
        let distance = |point: Option<&(f64, f64)>| {
            point.filter(|p| p.1.is_finite()).map_or(f64::INFINITY, |p| (self.top(p.1) - y).abs())
        };
        let room = |end: &dyn Fn(&Series) -> Option<&(f64, f64)>| {
            series.iter().map(|s| distance(end(s))).fold(f64::INFINITY, f64::min)
        };
        let at_left = room(&|s| s.points.first()) > room(&|s| s.points.last());
        let (x, class) =
            if at_left { (LEFT + 4.0, "label") } else { (WIDTH - RIGHT - 2.0, "end label") };
        let crowded = guides.iter().any(|(_, other)| {
            let above = y - self.top(*other);
            above > 0.0 && above < 16.0
        });
        let text = if crowded || y < TOP + 12.0 { y + 12.0 } else { y - 4.0 };
        let _ = writeln!(
            svg,
            "<path class=\"guide\" d=\"M{LEFT} {y:.1}H{:.1}\"/>\
             <text x=\"{x:.1}\" y=\"{text:.1}\" class=\"{class}\">{} {}</text>",
            WIDTH - RIGHT,
            escape(name),
            number(*value)
        );
    }

    /// Draws a line with gaps at non-finite values; an isolated point becomes a dot.
    fn line(&self, svg: &mut String, series: &Series, index: usize) {
        let mut path = String::new();
        let mut pen_down = false;
        for &(x, y) in &series.points {
            if y.is_finite() {
                let command = if pen_down { 'L' } else { 'M' };
                let _ = write!(path, "{command}{:.1} {:.1}", self.left(x), self.top(y));
                if !pen_down {
                    path.push_str("h0");
                }
            }
            pen_down = y.is_finite();
        }
        let _ = writeln!(svg, "<path class=\"line s{index}\" d=\"{path}\"/>");
        for &(x, low, high) in &series.ranges {
            let (x, bottom, top) = (self.left(x), self.top(low), self.top(high));
            let _ = writeln!(
                svg,
                "<path class=\"range s{index}\" d=\"M{x:.1} {bottom:.1}V{top:.1}\"/>"
            );
        }
    }

    /// Returns the data that the page's script needs to show the values under the pointer, as JSON.
    fn data(&self, series: &[Series]) -> String {
        let of_x = |x: f64| number(if self.x_is_log2 { x.exp2() } else { x });
        let lines: Vec<_> = series
            .iter()
            .map(|s| {
                let points = s.points.iter().filter(|p| p.1.is_finite());
                points.map(|&(x, y)| json!([round(self.left(x)), number(y), of_x(x)])).collect()
            })
            .map(serde_json::Value::Array)
            .collect();
        serde_json::Value::Array(lines).to_string()
    }
}

fn round(place: f64) -> f64 {
    (place * 10.0).round() / 10.0
}

/// Reduces a line to at most [`MAX_POINTS`] points. Where all averaged values are non-finite, the
/// line keeps a gap.
fn thinned(series: &Series) -> Series {
    let size = series.points.len().div_ceil(MAX_POINTS).max(1);
    let mean = |points: &[(f64, f64)]| {
        let finite: Vec<f64> = points.iter().map(|p| p.1).filter(|y| y.is_finite()).collect();
        let x = points.iter().map(|p| p.0).sum::<f64>() / points.len() as f64;
        (x, finite.iter().sum::<f64>() / finite.len() as f64)
    };
    let mut points: Vec<_> = series.points.chunks(size).map(mean).collect();
    // The latest value is the most important one, so it is not averaged.
    if let (Some(last), Some(newest)) = (points.last_mut(), series.points.last()) {
        *last = *newest;
    }
    Series { points, ..series.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        Chart {
            title: "A < B".into(),
            series: vec![Series { name: "x & y".into(), points, ..Series::default() }],
            ..Chart::default()
        }
    }

    #[test]
    fn a_chart_without_a_finite_point_is_none() {
        assert_eq!(chart(vec![]).to_html(), None);
        assert_eq!(chart(vec![(0.0, f64::NAN)]).to_html(), None);
    }

    #[test]
    fn lines_stop_at_gaps() {
        let nan = f64::NAN;
        let html = chart(vec![(0.0, 1.0), (1.0, 2.0), (2.0, nan), (3.0, 1.0)]).to_html().unwrap();
        let path = html.split("class=\"line s1\" d=\"").nth(1).unwrap();
        let path = path.split('"').next().unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert_eq!(path.matches('L').count(), 1, "{path}");
        assert!(!path.contains("NaN"), "{path}");
    }

    #[test]
    fn names_are_escaped() {
        let html = chart(vec![(0.0, 1.0)]).to_html().unwrap();
        assert!(html.contains("A &lt; B") && html.contains("x &amp; y"), "{html}");
    }

    #[test]
    fn the_line_stays_inside_the_drawing() {
        let points = (0..1000).map(|i| (f64::from(i), (f64::from(i) * 0.37).sin() * 1e6)).collect();
        let html = chart(points).to_html().unwrap();
        let path = html.split("class=\"line s1\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        let mut count = 0;
        for point in path.replace("h0", "").split(['M', 'L']).filter(|p| !p.is_empty()) {
            let (x, y) = point.split_once(' ').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y));
            count += 1;
        }
        assert!(count > 100 && count <= MAX_POINTS, "{count}");
    }
}
