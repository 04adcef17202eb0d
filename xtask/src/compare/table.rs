//! Medians and ratios as a Markdown table.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::engine::{Engine, Measured};
use super::plot;

/// All figures, by row and engine; the last engine of a row is the peer.
pub(super) struct Table {
    rounds: usize,
    rows: Vec<(&'static str, Vec<ByEngine>)>,
}

/// The rounds of one engine.
type ByEngine = (&'static str, Vec<Measured>);

/// A column: its heading, and its figure in the unit of the heading.
type Column = (&'static str, fn(&Measured) -> f64);

const COLUMNS: [Column; 9] = [
    ("dump ms", |m| milliseconds(m.dump.wall)),
    ("frozen ms", |m| milliseconds(m.frozen)),
    ("pause ms", |m| m.pause.map_or(f64::NAN, milliseconds)),
    ("restore ms", |m| milliseconds(m.restore.wall)),
    ("images MiB", |m| mib(m.bytes)),
    ("dump CPU ms", |m| milliseconds(m.dump.processor)),
    ("restore CPU ms", |m| milliseconds(m.restore.processor)),
    ("dump RSS MiB", |m| mib(m.dump.memory)),
    ("restore RSS MiB", |m| mib(m.restore.memory)),
];

impl Table {
    pub(super) fn new(rounds: usize) -> Self {
        Self {
            rounds,
            rows: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, row: &'static str, figures: Vec<(&Engine, Vec<Measured>)>) {
        let figures = figures
            .into_iter()
            .map(|(engine, figures)| (engine.name, figures))
            .collect();
        self.rows.push((row, figures));
    }

    /// Draws every row: medians of dump, frozen time and restore, beside the peer's.
    pub(super) fn plot(&self, folder: &Path) -> Result<()> {
        for (row, engines) in &self.rows {
            let bars = COLUMNS[..4].iter().map(|(heading, column)| {
                let values = engines.iter();
                let values = values.map(|(engine, figures)| (*engine, median(figures, *column)));
                (
                    *heading,
                    values.filter(|(_, value)| !value.is_nan()).collect(),
                )
            });
            let name: String = row.chars().filter(|c| *c != ',').collect();
            let path = folder.join(name.replace(' ', "-")).with_extension("svg");
            fs::write(path, plot::svg(row, &bars.collect::<Vec<_>>()))?;
        }
        Ok(())
    }

    /// Every single figure.
    pub(super) fn figures(&self) -> Value {
        let rows = self.rows.iter().map(|(row, engines)| {
            let engines = engines
                .iter()
                .map(|(engine, figures)| json!({"engine": engine, "rounds": figures}));
            json!({"row": row, "engines": engines.collect::<Vec<_>>()})
        });
        Value::Array(rows.collect())
    }
}

impl Display for Table {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "Medians of {}, in brackets the ratio to the peer's.\n",
            self.rounds
        )?;
        write!(out, "| row | engine |")?;
        COLUMNS
            .iter()
            .try_for_each(|(heading, _)| write!(out, " {heading} |"))?;
        writeln!(out, "\n| --- | --- |{}", " ---: |".repeat(COLUMNS.len()))?;
        for (row, engines) in &self.rows {
            let peer = engines.last().map(|(_, figures)| figures.as_slice());
            for (place, (engine, figures)) in engines.iter().enumerate() {
                write!(out, "| {row} | {engine} |")?;
                for (_, column) in COLUMNS {
                    let own = median(figures, column);
                    if own.is_nan() {
                        write!(out, " |")?;
                        continue;
                    }
                    write!(out, " {}", figure(own))?;
                    if place + 1 < engines.len() {
                        write!(
                            out,
                            " ({:.2})",
                            own / median(peer.unwrap_or_default(), column)
                        )?;
                    }
                    write!(out, " |")?;
                }
                writeln!(out)?;
            }
        }
        Ok(())
    }
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The middle of a column; of an even number, the mean of the two in the middle.
fn median(figures: &[Measured], column: fn(&Measured) -> f64) -> f64 {
    let mut values: Vec<f64> = figures.iter().map(column).collect();
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (odd, half) if odd % 2 == 1 => values[half],
        (_, half) => f64::midpoint(values[half - 1], values[half]),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::{figure, median};
    use crate::compare::engine::{Cost, Measured};
    use std::time::Duration;

    fn measured(bytes: u64) -> Measured {
        let cost = Cost {
            wall: Duration::ZERO,
            processor: Duration::ZERO,
            memory: 0,
        };
        Measured {
            dump: cost,
            restore: cost,
            frozen: Duration::ZERO,
            pause: None,
            bytes,
        }
    }

    #[test]
    fn medians_of_odd_and_even_numbers() {
        let all = [5, 1, 9, 2].map(measured);
        assert_eq!(median(&all[..3], |m| m.bytes as f64), 5.0);
        assert_eq!(median(&all, |m| m.bytes as f64), 3.5);
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!([3.456, 34.56, 345.6].map(figure), ["3.46", "34.6", "346"]);
    }
}
