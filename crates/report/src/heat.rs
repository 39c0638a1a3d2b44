//! Heat maps as SVG: a value for each combination of two settings.

use std::fmt::Write;

use super::markup::escape;

/// Sizes of a cell and of the margins for labels, in units of the view box.
const CELL_WIDTH: f64 = 86.0;
const CELL_HEIGHT: f64 = 40.0;
const LEFT: f64 = 96.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 40.0;
/// Opacities of the lowest and of the highest value.
const FAINT: f64 = 0.06;
const FULL: f64 = 0.72;

/// One cell of a map.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    /// Column and row, as indices of the labels.
    pub at: (usize, usize),
    /// The value that the color shows.
    pub value: f64,
    /// The value as text.
    pub text: String,
    /// A second, smaller line.
    pub remark: String,
    /// Whether the cell is marked as bad.
    pub bad: bool,
}

/// A heat map.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeatMap {
    /// Heading.
    pub title: String,
    /// Name and labels of the columns.
    pub x: (String, Vec<String>),
    /// Name and labels of the rows.
    pub y: (String, Vec<String>),
    /// The cells that have a value.
    pub cells: Vec<Cell>,
    /// Values of the faintest and of the strongest color.
    pub range: (f64, f64),
}

impl HeatMap {
    /// Draws the map as an HTML figure.
    pub(crate) fn to_html(&self) -> String {
        let (columns, rows) = (self.x.1.len() as f64, self.y.1.len() as f64);
        let (width, bottom) = (LEFT + CELL_WIDTH * columns, TOP + CELL_HEIGHT * rows);
        let mut svg = String::new();
        for cell in &self.cells {
            self.cell(&mut svg, cell);
        }
        for (i, label) in self.x.1.iter().enumerate() {
            let x = LEFT + CELL_WIDTH * (i as f64 + 0.5);
            let y = bottom + 16.0;
            text(&mut svg, (x, y), "middle", label);
        }
        for (i, label) in self.y.1.iter().enumerate() {
            let y = TOP + CELL_HEIGHT * (i as f64 + 0.5) + 4.0;
            text(&mut svg, (LEFT - 8.0, y), "end", label);
        }
        text(&mut svg, (width, bottom + 34.0), "end label", &self.x.0);
        let title = escape(&self.title);
        format!(
            "<figure class=\"chart\"><h3>{title}</h3><p class=\"note\">rows: {}</p>\n\
             <svg viewBox=\"0 0 {width} {}\" role=\"img\" aria-label=\"{title}\">\n{svg}</svg>\
             </figure>\n",
            escape(&self.y.0),
            bottom + BOTTOM
        )
    }

    fn cell(&self, svg: &mut String, cell: &Cell) {
        let (low, high) = self.range;
        let share = ((cell.value - low) / (high - low).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
        let (x, y) = (LEFT + CELL_WIDTH * cell.at.0 as f64, TOP + CELL_HEIGHT * cell.at.1 as f64);
        let (color, opacity) = match cell.bad {
            true => ("var(--c2)", FULL),
            false => ("var(--c1)", FAINT + share * (FULL - FAINT)),
        };
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\" \
             fill=\"{color}\" fill-opacity=\"{opacity:.3}\"/>",
            x + 1.0,
            y + 1.0,
            CELL_WIDTH - 2.0,
            CELL_HEIGHT - 2.0
        );
        let middle = x + 0.5 * CELL_WIDTH;
        text(svg, (middle, y + 17.0), "middle value", &cell.text);
        text(svg, (middle, y + 32.0), "middle", &cell.remark);
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), class: &str, text: &str) {
    let text = escape(text);
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cell_is_drawn_where_its_labels_are_and_text_is_escaped() {
        let cell = |at, value, bad| Cell { at, value, bad, text: "<".into(), ..Cell::default() };
        let map = HeatMap {
            title: "k & n".into(),
            x: ("batch".into(), vec!["16".into(), "64".into()]),
            y: ("rate".into(), vec!["1".into()]),
            cells: vec![cell((0, 0), 0.0, false), cell((1, 0), 2.0, true)],
            range: (0.0, 1.0),
        };
        let html = map.to_html();
        assert_eq!(html.matches("<rect").count(), 2);
        assert_eq!(html.matches("var(--c2)").count(), 1);
        assert!(html.contains("k &amp; n") && html.contains(">&lt;<"), "{html}");
        assert!(html.contains(&format!("fill-opacity=\"{FAINT:.3}\"")), "{html}");
        assert!(!html.contains("NaN"));
    }
}
