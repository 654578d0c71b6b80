//! The little of SVG that charts need.

use std::fmt::{self, Write as _};

/// Width of a picture of bars, and the room that one bar takes in height.
pub const BARS_WIDTH: f64 = 860.0;
/// From one bar to the next.
pub const BAR_ROW: f64 = 28.0;
const BAR: f64 = 22.0;
const BARS_LEFT: f64 = 250.0;
const BARS_SPACE: f64 = 330.0;

/// A picture in the making.
#[derive(Debug)]
pub struct Svg(String);

/// Where a text stands in relation to its point.
#[derive(Debug, Clone, Copy)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// It is centred there.
    Middle,
    /// It ends there.
    End,
}

impl Svg {
    /// An empty picture on white.
    pub fn new(width: f64, height: f64) -> Self {
        let mut svg = Self(String::new());
        svg.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>"
        ));
        svg
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        self.put(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    /// A line through points.
    pub fn curve(&mut self, points: &[(f64, f64)], colour: &str) {
        let mut list = String::new();
        for (x, y) in points {
            // Writing to a string does not fail.
            let _ = write!(list, "{x:.1},{y:.1} ");
        }
        self.put(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" \
             stroke-linejoin=\"round\"/>",
            list.trim_end()
        ));
    }

    /// A filled box.
    pub fn block(&mut self, at: (f64, f64), size: (f64, f64), colour: &str) {
        self.put(format_args!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
            at.0, at.1, size.0, size.1
        ));
    }

    /// A bar with its name before it and words behind; `share` of the longest one. The first of a group is
    /// ours, and has a colour of its own.
    pub fn bar(&mut self, y: f64, name: &str, share: f64, is_ours: bool, words: &str) {
        let long = (share * BARS_SPACE).max(1.0);
        let colour = if is_ours { "#0d6e68" } else { "#c9a227" };
        self.text((BARS_LEFT - 10.0, y + 16.0), Anchor::End, "#444", name);
        self.block((BARS_LEFT, y), (long, BAR), colour);
        let behind = (BARS_LEFT + long + 8.0, y + 16.0);
        self.text(behind, Anchor::Start, "#222", words);
    }

    /// A text.
    pub fn text(&mut self, at: (f64, f64), anchor: Anchor, colour: &str, text: &str) {
        self.styled(at, anchor, colour, "", text);
    }

    /// A bold text, a little larger.
    pub fn title(&mut self, at: (f64, f64), text: &str) {
        self.styled(
            at,
            Anchor::Start,
            "#111",
            " font-weight=\"600\" font-size=\"15\"",
            text,
        );
    }

    /// The finished picture.
    pub fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }

    fn styled(&mut self, at: (f64, f64), anchor: Anchor, colour: &str, style: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        self.put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\"{style}>{text}</text>",
            at.0, at.1
        ));
    }

    fn put(&mut self, element: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.0.write_fmt(element);
        self.0.push('\n');
    }
}

/// A step between the marks of an axis that is easy to read: 1, 2 or 5 times a power of ten, so that
/// at most `marks` of them reach `most`.
pub fn step(most: f64, marks: f64) -> f64 {
    let rough = (most / marks).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    let digit = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|digit| digit * power >= rough * 0.999);
    digit.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_marked_in_steps_that_are_easy_to_read() {
        for (most, right) in [
            (10.0, 2.0),
            (73.0, 20.0),
            (101.0, 50.0),
            (4.0, 1.0),
            (0.9, 0.2),
        ] {
            assert!(
                (step(most, 5.0) - right).abs() < 1e-9,
                "{most}: {}",
                step(most, 5.0)
            );
        }
    }

    #[test]
    fn words_cannot_break_the_picture() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text((1.0, 1.0), Anchor::Start, "#000", "<b>&");
        assert!(svg.finish().contains(">&lt;b&gt;&amp;</text>"));
    }
}
