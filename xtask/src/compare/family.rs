//! Programs of one kind and several sizes: time over size as an SVG picture.

use std::ops::Range;

use anyhow::Result;
use plotters::prelude::*;

use super::rows::Size;
use super::table::{ByEngine, Column, DUMP, RESTORE, median};

const PIXELS: (u32, u32) = (800, 560);
const FONT: &str = "sans-serif";

/// All families of which rows were measured.
#[derive(Default)]
pub(super) struct Families(Vec<Family>);

/// One of them.
pub(super) struct Family {
    pub(super) name: &'static str,
    unit: &'static str,
    lines: Vec<Line>,
}

/// What one engine took.
struct Line {
    engine: &'static str,
    column: Column,
    /// Size and milliseconds, in ascending order of size.
    points: Vec<(f64, f64)>,
}

impl Families {
    /// Adds a row.
    pub(super) fn add(&mut self, size: Size, engines: &[ByEngine]) {
        let place = self.0.iter().position(|known| known.name == size.family);
        let place = place.unwrap_or_else(|| {
            self.0.push(Family {
                name: size.family,
                unit: size.unit,
                lines: Vec::new(),
            });
            self.0.len() - 1
        });
        for (engine, figures) in engines {
            for column in [DUMP, RESTORE] {
                let point = (f64::from(size.count), median(figures, column.1));
                if !point.1.is_nan() {
                    self.0[place].add(engine, column, point);
                }
            }
        }
    }

    /// Those with more than one size.
    pub(super) fn drawable(&self) -> impl Iterator<Item = &Family> {
        let several = |line: &Line| line.points.len() > 1;
        self.0
            .iter()
            .filter(move |family| family.lines.iter().any(several))
    }
}

impl Family {
    fn add(&mut self, engine: &'static str, column: Column, point: (f64, f64)) {
        let same = |line: &&mut Line| line.engine == engine && line.column.0 == column.0;
        let line = match self.lines.iter_mut().find(same) {
            Some(line) => line,
            None => {
                let points = Vec::new();
                self.lines.push(Line {
                    engine,
                    column,
                    points,
                });
                let last = self.lines.len() - 1;
                &mut self.lines[last]
            }
        };
        let place = line.points.partition_point(|(size, _)| *size < point.0);
        line.points.insert(place, point);
    }

    /// Draws it with both axes logarithmic: a line for the dumps of each engine, a broken one for its restores.
    pub(super) fn svg(&self) -> Result<String> {
        let mut text = String::new();
        let picture = SVGBackend::with_string(&mut text, PIXELS).into_drawing_area();
        picture.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&picture)
            .caption(self.name, (FONT, 20))
            .margin(14)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(
                self.span(|point| point.0).log_scale(),
                self.span(|point| point.1).log_scale(),
            )?;
        chart
            .configure_mesh()
            .x_desc(self.unit)
            .y_desc("ms")
            .x_label_formatter(&f64::to_string)
            .y_label_formatter(&f64::to_string)
            .label_style((FONT, 13))
            .draw()?;
        for line in &self.lines {
            let style = line.colour().stroke_width(2);
            let name = format!("{}, {}", line.engine, line.column.0.trim_end_matches(" ms"));
            let points = line.points.iter().copied();
            let gap = if line.is_broken() { 5 } else { 0 };
            let drawn = chart.draw_series(DashedLineSeries::new(points.clone(), 8, gap, style))?;
            drawn.label(name).legend(move |(x, y)| {
                let broken = [(x, y), (x + if gap > 0 { 9 } else { 20 }, y)];
                PathElement::new(broken, style)
            });
            chart.draw_series(points.map(|point| Circle::new(point, 3, style.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .label_font((FONT, 13))
            .draw()?;
        picture.present()?;
        drop(chart);
        drop(picture);
        Ok(text)
    }

    /// From half of the smallest value to twice the largest.
    fn span(&self, value: impl Fn(&(f64, f64)) -> f64) -> Range<f64> {
        let points = self.lines.iter().flat_map(|line| &line.points);
        let values = points.map(value).filter(|value| *value > 0.0);
        let (least, most) = values.fold((f64::MAX, f64::MIN_POSITIVE), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        least.min(most) / 2.0..most * 2.0
    }
}

impl Line {
    fn is_broken(&self) -> bool {
        self.column.0 == RESTORE.0
    }

    /// The peer's stays the same, whoever is beside it.
    fn colour(&self) -> RGBColor {
        match self.engine {
            "peer" => RGBColor(0xbc, 0x6c, 0x25),
            "gelid" => RGBColor(0x2a, 0x6f, 0x97),
            "bare calls" => RGBColor(0x8d, 0x99, 0xae),
            _ => RGBColor(0x4c, 0xa3, 0x6b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::table::tests::measured;

    fn size(family: &'static str, count: u32) -> Size {
        Size {
            family,
            count,
            unit: "things",
        }
    }

    #[test]
    fn sizes_of_a_family_are_one_picture() {
        let mut families = Families::default();
        let both = |own, peer| {
            [
                ("gelid", vec![measured(own)]),
                ("peer", vec![measured(peer)]),
            ]
        };
        families.add(size("many", 10_000), &both(90, 300));
        families.add(size("many", 100), &both(2, 5));
        families.add(size("alone", 1), &both(1, 2));
        families.add(size("many", 50_000), &[("peer", Vec::new())]);
        let drawable: Vec<_> = families.drawable().collect();
        assert_eq!(drawable.len(), 1);
        let many = drawable[0];
        assert_eq!(many.lines.len(), 4);
        assert_eq!(many.lines[0].points, [(100.0, 2.0), (10_000.0, 90.0)]);
        assert_eq!(many.span(|point| point.0), 50.0..20_000.0);
        assert_eq!(many.span(|point| point.1), 1.0..600.0);

        let picture = many.svg().unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
        for word in ["many", "things", "gelid, dump", "peer, restore"] {
            assert!(picture.contains(word), "{word}");
        }
        assert_eq!(picture.matches("<circle").count(), 8);
    }
}
