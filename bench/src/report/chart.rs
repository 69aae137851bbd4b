//! Line charts as inline SVG.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

/// One line of a chart.
pub struct Series {
    /// Its name in the legend.
    pub name: &'static str,
    /// The number of its colour, from 1.
    pub colour: u8,
    /// Its points, by rising x.
    pub points: Vec<(f64, f64)>,
}

/// A chart.
pub struct Chart {
    /// Identifies it on the page.
    pub id: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// Its lines.
    pub series: Vec<Series>,
    /// Marks on the x axis and their texts.
    pub x_ticks: Vec<(f64, String)>,
    /// The ends of the x axis.
    pub x_range: (f64, f64),
    /// What the x axis counts.
    pub x_label: &'static str,
    /// Marks on the y axis and their texts.
    pub y_ticks: Vec<(f64, String)>,
    /// The ends of the y axis.
    pub y_range: (f64, f64),
    /// Whether the y axis is logarithmic.
    pub y_log: bool,
    /// The text of a point: what stands in the tip.
    pub tip: fn(x: f64, y: f64, name: &str) -> String,
}

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 38.0;

impl Chart {
    fn x(&self, x: f64) -> f64 {
        let (low, high) = self.x_range;
        let share = if high > low {
            (x - low) / (high - low)
        } else {
            0.5
        };
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        let (low, high) = self.y_range;
        let (y, low, high) = match self.y_log {
            true => (y.max(low).ln(), low.ln(), high.ln()),
            false => (y, low, high),
        };
        let share = if high > low {
            (y - low) / (high - low)
        } else {
            0.5
        };
        HEIGHT - BOTTOM - share.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }

    /// The chart as a `figure` element.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let _ = write!(
            out,
            "<figure id=\"{}\"><figcaption>{}",
            self.id,
            escape(self.title)
        );
        if self.series.len() > 1 {
            for series in &self.series {
                let _ = write!(
                    out,
                    " <span class=\"key c{}\">{}</span>",
                    series.colour,
                    escape(series.name)
                );
            }
        }
        let _ = write!(
            out,
            "</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(self.title)
        );
        self.axes(&mut out);
        for series in &self.series {
            self.line(series, &mut out);
        }
        out.push_str("<g class=\"hover\"></g></svg></figure>\n");
        out
    }

    fn axes(&self, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, text) in &self.y_ticks {
            let y = self.y(*value);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" class=\"y\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                escape(text)
            );
        }
        for (value, text) in &self.x_ticks {
            let x = self.x(*value);
            let _ = write!(
                out,
                "<text x=\"{x:.1}\" y=\"{:.1}\" class=\"x\">{}</text>",
                bottom + 16.0,
                escape(text)
            );
        }
        let _ = write!(
            out,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" class=\"x label\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 4.0,
            escape(self.x_label)
        );
    }

    fn line(&self, series: &Series, out: &mut String) {
        let mut path = String::new();
        for (at, (x, y)) in series.points.iter().enumerate() {
            let command = if at == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {:.1}", self.x(*x), self.y(*y));
        }
        let _ = write!(
            out,
            "<path class=\"line c{}\" d=\"{path}\"/>",
            series.colour
        );
        // The points as the script shows them: place and text, one after the other.
        let tips: Vec<(f64, f64, String)> = series
            .points
            .iter()
            .map(|(x, y)| {
                (
                    self.x(*x).round(),
                    self.y(*y).round(),
                    (self.tip)(*x, *y, series.name),
                )
            })
            .collect();
        let tips = serde_json::to_string(&tips).unwrap_or_default();
        let _ = write!(
            out,
            "<desc class=\"c{}\">{}</desc>",
            series.colour,
            escape(&tips)
        );
    }
}

/// Round marks from 0 to at least `most`: about five of them.
pub fn linear_ticks(most: f64) -> Vec<f64> {
    if most.is_nan() || most <= 0.0 {
        return vec![0.0, 1.0];
    }
    let rough = most / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough * 0.999_999)
        .unwrap_or(power * 10.0);
    let count = (most / step - 1e-9).ceil() as usize;
    (0..=count).map(|at| at as f64 * step).collect()
}

/// Powers of ten, with 2 and 5 times each if there are few, around `low..=high`.
pub fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let first = low.max(1.0).log10().floor() as i32;
    let last = high.max(10.0).log10().ceil() as i32;
    let factors: &[f64] = if last - first > 3 {
        &[1.0]
    } else {
        &[1.0, 2.0, 5.0]
    };
    let mut ticks: Vec<f64> = (first..=last)
        .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)))
        .collect();
    // Only one mark below the lowest value and one above the highest.
    while ticks.len() > 2 && ticks[1] <= low {
        ticks.remove(0);
    }
    while ticks.len() > 2 && ticks[ticks.len() - 2] >= high {
        ticks.pop();
    }
    ticks
}

/// The text with everything replaced that means something in HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_enclose_the_data() {
        assert_eq!(linear_ticks(97_000.0), [0.0, 2e4, 4e4, 6e4, 8e4, 1e5]);
        assert_eq!(linear_ticks(0.0), [0.0, 1.0]);
        assert_eq!(linear_ticks(5.0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(log_ticks(3e6, 4e7), [2e6, 5e6, 1e7, 2e7, 5e7]);
        assert_eq!(log_ticks(90.0, 2e6), [10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7]);
        for most in [0.3, 1.0, 7.7, 123_456.0, 1e9] {
            let ticks = linear_ticks(most);
            assert!(
                *ticks.last().unwrap() >= most && ticks.len() <= 8,
                "{most}: {ticks:?}"
            );
        }
    }
}
