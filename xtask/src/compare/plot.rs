//! Bars as an SVG picture.

use std::fmt::Write;

/// A group of bars: its heading, and the value of each engine.
pub(super) type Group = (&'static str, Vec<(&'static str, f64)>);

const WIDTH: f64 = 720.0;
const LABELS: f64 = 190.0;
const BAR: f64 = 16.0;

/// Draws groups of horizontal bars, each group in a scale of its own.
pub(super) fn svg(title: &str, groups: &[Group]) -> String {
    let mut body = String::new();
    let mut top = 40.0;
    for (heading, bars) in groups.iter().filter(|(_, bars)| !bars.is_empty()) {
        let most = bars
            .iter()
            .map(|(_, value)| *value)
            .fold(f64::MIN_POSITIVE, f64::max);
        for (engine, value) in bars {
            let length = value / most * (WIDTH - LABELS - 90.0);
            let colour = match *engine {
                "peer" => "#bc6c25",
                "gelid" => "#2a6f97",
                "bare calls" => "#8d99ae",
                _ => "#61a5c2",
            };
            let (base, end) = (top + BAR - 4.0, LABELS + length + 6.0);
            let _ = writeln!(
                body,
                "<text x=\"{:.0}\" y=\"{base:.0}\" text-anchor=\"end\">{engine}, {heading}</text>\
                 <rect x=\"{LABELS}\" y=\"{top:.0}\" width=\"{length:.1}\" height=\"{:.0}\" fill=\"{colour}\"/>\
                 <text x=\"{end:.0}\" y=\"{base:.0}\">{value:.1}</text>",
                LABELS - 6.0,
                BAR - 3.0,
            );
            top += BAR;
        }
        top += BAR / 2.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{top:.0}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<text x=\"6\" y=\"20\" font-size=\"14\">{title}</text>\n{body}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_longest_bar_fills_its_group() {
        let picture = super::svg("it", &[("ms", vec![("a", 1.0), ("b", 4.0)])]);
        assert!(picture.contains("width=\"440.0\"") && picture.contains("width=\"110.0\""));
    }
}
