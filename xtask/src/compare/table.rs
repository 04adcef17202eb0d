//! Medians and ratios as a Markdown table.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::engine::{Cost, Engine, Measured};
use super::family::Families;
use super::plot;
use super::rows::Row;

/// All figures, by row and engine; the last engine of a row is the peer.
pub(super) struct Table {
    rounds: usize,
    rows: Vec<(&'static Row, Vec<ByEngine>)>,
}

/// The rounds of one engine.
pub(super) type ByEngine = (&'static str, Vec<Measured>);

/// A column: its heading, and its figure in the unit of the heading.
pub(super) type Column = (&'static str, fn(&Measured) -> f64);

pub(super) const DUMP: Column = ("dump ms", |m| milliseconds(m.dump.wall));
pub(super) const RESTORE: Column = ("restore ms", |m| restore(m, |cost| milliseconds(cost.wall)));

/// A figure of a restore, if there was one.
fn restore(measured: &Measured, figure: impl Fn(&Cost) -> f64) -> f64 {
    measured.restore.as_ref().map_or(f64::NAN, figure)
}

/// What somebody waits for.
const TIMES: [Column; 6] = [
    DUMP,
    ("frozen ms", |m| milliseconds(m.frozen)),
    ("pause ms", |m| m.pause.map_or(f64::NAN, milliseconds)),
    RESTORE,
    ("answer ms", |m| m.answer.map_or(f64::NAN, milliseconds)),
    ("resident ms", |m| m.resident.map_or(f64::NAN, milliseconds)),
];

/// What it takes of the machine.
const COSTS: [Column; 5] = [
    ("images MiB", |m| m.bytes.map_or(f64::NAN, mib)),
    ("dump CPU ms", |m| milliseconds(m.dump.processor)),
    ("restore CPU ms", |m| {
        restore(m, |cost| milliseconds(cost.processor))
    }),
    ("dump RSS MiB", |m| mib(m.dump.memory)),
    ("restore RSS MiB", |m| restore(m, |cost| mib(cost.memory))),
];

impl Table {
    pub(super) fn new(rounds: usize) -> Self {
        Self {
            rounds,
            rows: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, row: &'static Row, figures: Vec<(&Engine, Vec<Measured>)>) {
        let figures = figures
            .into_iter()
            .map(|(engine, figures)| (engine.name, figures))
            .collect();
        self.rows.push((row, figures));
    }

    /// Draws every row, medians of all times beside the peer's; and the rows that differ in size only, together.
    pub(super) fn plot(&self, folder: &Path) -> Result<()> {
        for (row, engines) in &self.rows {
            let bars = TIMES.iter().map(|(heading, column)| {
                let values = engines.iter();
                let values = values.map(|(engine, figures)| (*engine, median(figures, *column)));
                (
                    *heading,
                    values.filter(|(_, value)| !value.is_nan()).collect(),
                )
            });
            let picture = plot::svg(row.name, &bars.collect::<Vec<_>>());
            fs::write(picture_of(folder, row.name), picture)?;
        }
        let mut families = Families::default();
        for (row, engines) in &self.rows {
            if let Some(size) = row.size {
                families.add(size, engines);
            }
        }
        for family in families.drawable() {
            fs::write(picture_of(folder, family.name), family.svg()?)?;
        }
        Ok(())
    }

    /// One table of all rows.
    fn write(&self, out: &mut Formatter<'_>, columns: &[Column]) -> fmt::Result {
        write!(out, "| row | engine |")?;
        columns
            .iter()
            .try_for_each(|(heading, _)| write!(out, " {heading} |"))?;
        writeln!(out, "\n| --- | --- |{}", " ---: |".repeat(columns.len()))?;
        for (row, engines) in &self.rows {
            let peer = engines.last().map(|(_, figures)| figures.as_slice());
            for (place, (engine, figures)) in engines.iter().enumerate() {
                let peer = peer.filter(|_| place + 1 < engines.len());
                write!(out, "| {} | {engine} |", row.name)?;
                for column in columns {
                    write!(out, "{} |", cell(figures, peer, column))?;
                }
                writeln!(out)?;
            }
        }
        Ok(())
    }

    /// Every single figure.
    pub(super) fn figures(&self) -> Value {
        let rows = self.rows.iter().map(|(row, engines)| {
            let engines = engines
                .iter()
                .map(|(engine, figures)| json!({"engine": engine, "rounds": figures}));
            json!({"row": row.name, "engines": engines.collect::<Vec<_>>()})
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
        self.write(out, &TIMES)?;
        writeln!(out)?;
        self.write(out, &COSTS)
    }
}

/// A median, and its ratio to that of the peer; nothing if there is none.
fn cell(figures: &[Measured], peer: Option<&[Measured]>, (_, column): &Column) -> String {
    let own = median(figures, *column);
    let ratio = own / peer.map_or(f64::NAN, |peer| median(peer, *column));
    match (own.is_nan(), ratio.is_nan()) {
        (true, _) => String::new(),
        (false, true) => format!(" {}", figure(own)),
        (false, false) => format!(" {} ({ratio:.2})", figure(own)),
    }
}

/// The path of a picture.
fn picture_of(folder: &Path, name: &str) -> PathBuf {
    let name: String = name.chars().filter(|c| *c != ',').collect();
    folder.join(name.replace(' ', "-")).with_extension("svg")
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The middle of what was measured of a column; of an even number, the mean of the two in the middle.
pub(super) fn median<T>(figures: &[T], column: impl Fn(&T) -> f64) -> f64 {
    let values = figures.iter().map(column);
    let mut values: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (odd, half) if odd % 2 == 1 => values[half],
        (_, half) => f64::midpoint(values[half - 1], values[half]),
    }
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
pub(super) mod tests {
    use super::{RESTORE, TIMES, cell, figure, median, milliseconds};
    use crate::compare::engine::{Cost, Measured};
    use std::time::Duration;

    /// A round in which everything took so many milliseconds.
    pub(in crate::compare) fn measured(millis: u64) -> Measured {
        let wall = Duration::from_millis(millis);
        let cost = Cost {
            wall,
            processor: wall,
            memory: 0,
        };
        Measured {
            dump: cost,
            restore: Some(cost),
            frozen: wall,
            pause: None,
            answer: Some(wall),
            resident: None,
            bytes: Some(millis),
        }
    }

    #[test]
    fn medians_of_odd_and_even_numbers() {
        let all = [5, 1, 9, 2].map(measured);
        assert_eq!(median(&all[..3], |m| milliseconds(m.dump.wall)), 5.0);
        assert_eq!(median(&all, |m| milliseconds(m.dump.wall)), 3.5);
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!([3.456, 34.56, 345.6].map(figure), ["3.46", "34.6", "346"]);
    }

    #[test]
    fn what_was_not_measured_is_not_told() {
        let (own, peer) = ([measured(5)], [measured(10)]);
        let cells = TIMES.map(|column| cell(&own, Some(&peer), &column));
        let all = " 5.00 (0.50)";
        assert_eq!(cells, [all, all, "", all, all, ""]);
        assert_eq!(cell(&own, None, &TIMES[0]), " 5.00");
        let none = Measured {
            restore: None,
            ..own[0]
        };
        assert_eq!(cell(&[own[0], none], None, &RESTORE), " 5.00");
    }
}
