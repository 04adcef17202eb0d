//! `gelid show DIR [FILE]`: what is in the images, gelid's own and CRIU's.
//!
//! Without a file there is a line for each image; every record is decoded for it, so what is broken is told.
//! With a file, or with `--all`, there are the records themselves. `--json` prints one document.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use gelid_image::{Dir, ImageKind, Structure, show};
use serde_json::{Map, Value};

use crate::args::Invocation;

/// Prints what was asked for. Whoever reads may stop reading at any time.
pub(crate) fn run(invocation: &Invocation) -> anyhow::Result<ExitCode> {
    let mut words = invocation.words.iter();
    let folder = words
        .next()
        .map_or(invocation.options.general.images_dir.as_path(), Path::new);
    let file = words
        .next()
        .map(|file| {
            file.to_str()
                .context("a name that is not UTF-8 is no image")
        })
        .transpose()?;
    let dir = Dir::open(folder)?;
    let options = &invocation.options.check;
    let mut out = BufWriter::new(io::stdout().lock());
    let shown = match file {
        Some(file) if options.json => show::file(&dir, file)
            .map_err(Into::into)
            .and_then(|value| json(&mut out, &value))
            .map(|()| true),
        Some(file) => records(&mut out, &dir, file).map(|()| true),
        None if options.json => all_json(&mut out, &dir),
        None if options.all => all_records(&mut out, &dir),
        None => summary(&mut out, &dir),
    };
    match shown.and_then(|whole| Ok(out.flush().map(|()| whole)?)) {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The names of the files in `dir` that are images, in order.
fn images(dir: &Dir) -> anyhow::Result<Vec<(String, ImageKind)>> {
    let mut images: Vec<_> = dir
        .names()?
        .into_iter()
        .filter_map(|name| {
            let (kind, _) = ImageKind::from_file_name(&name)?;
            Some((name, kind))
        })
        .collect();
    images.sort_by(|a, b| a.0.cmp(&b.0));
    anyhow::ensure!(!images.is_empty(), "there are no images in {}", dir.label());
    Ok(images)
}

/// A line for each image; whether all of them could be decoded.
fn summary(out: &mut impl Write, dir: &Dir) -> anyhow::Result<bool> {
    let mut whole = true;
    for (name, kind) in images(dir)? {
        let symbol = kind.spec().symbol;
        if kind.spec().structure == Structure::Raw {
            let bytes = dir.raw(&name)?.metadata()?.len();
            writeln!(out, "{name:<28} {symbol:<16} {bytes} bytes")?;
            continue;
        }
        match show::entries(dir, &name).and_then(|entries| {
            entries
                .into_iter()
                .try_fold(0_u64, |count, entry| entry.map(|_| count + 1))
        }) {
            Ok(count) => writeln!(
                out,
                "{name:<28} {symbol:<16} {count} {}",
                if count == 1 { "record" } else { "records" }
            )?,
            Err(error) => {
                whole = false;
                writeln!(out, "{name:<28} {symbol:<16} {error}")?;
            }
        }
    }
    Ok(whole)
}

/// The records of every image; whether all of them could be decoded.
fn all_records(out: &mut impl Write, dir: &Dir) -> anyhow::Result<bool> {
    let mut whole = true;
    for (name, kind) in images(dir)? {
        writeln!(out, "{name}: {}", kind.spec().symbol)?;
        if kind.spec().structure == Structure::Raw {
            writeln!(out, "  {} bytes", dir.raw(&name)?.metadata()?.len())?;
        } else if let Err(error) = records(out, dir, &name) {
            if is_broken_pipe(&error) {
                return Err(error);
            }
            whole = false;
            writeln!(out, "  {error}")?;
        }
    }
    Ok(whole)
}

/// The records of one image, one after the other.
fn records(out: &mut impl Write, dir: &Dir, name: &str) -> anyhow::Result<()> {
    for (number, entry) in show::entries(dir, name)?.enumerate() {
        writeln!(out, "- record: {number}")?;
        fields(out, &entry?, 1)?;
    }
    Ok(())
}

/// Fields of a record, one on a line, deeper ones indented.
fn fields(out: &mut impl Write, value: &Value, depth: usize) -> io::Result<()> {
    let indent = "  ".repeat(depth);
    let one = |out: &mut dyn Write, name: &str, value: &Value| match value {
        Value::Object(map) if !map.is_empty() => writeln!(out, "{indent}{name}:").map(|()| true),
        Value::Array(list) if list.iter().any(|item| item.is_object() || item.is_array()) => {
            writeln!(out, "{indent}{name}:").map(|()| true)
        }
        Value::String(text) => {
            writeln!(out, "{indent}{name}: {}", text.escape_debug()).map(|()| false)
        }
        plain => writeln!(out, "{indent}{name}: {plain}").map(|()| false),
    };
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if one(out, name, value)? {
                    fields(out, value, depth + 1)?;
                }
            }
        }
        Value::Array(list) => {
            for (number, value) in list.iter().enumerate() {
                if one(out, &number.to_string(), value)? {
                    fields(out, value, depth + 1)?;
                }
            }
        }
        plain => writeln!(out, "{indent}{plain}")?,
    }
    Ok(())
}

/// Every image in one document, by its name; whether all of them could be decoded.
fn all_json(out: &mut impl Write, dir: &Dir) -> anyhow::Result<bool> {
    let mut whole = true;
    let mut document = Map::new();
    for (name, _) in images(dir)? {
        let value = show::file(dir, &name).unwrap_or_else(|error| {
            whole = false;
            serde_json::json!({ "error": error.to_string() })
        });
        document.insert(name, value);
    }
    json(out, &Value::Object(document))?;
    Ok(whole)
}

fn json(out: &mut impl Write, value: &Value) -> anyhow::Result<()> {
    // The kind of an I/O error is kept, so that a closed pipe is still seen.
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeper_fields_are_indented() {
        let value = serde_json::json!({"pid": 7, "name": "a\nb", "ids": {"vm": 1}, "threads": [7, 8], "list": [{"a": 1}]});
        let mut text = Vec::new();
        fields(&mut text, &value, 1).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            "  pid: 7",
            "  name: a\\nb",
            "  ids:",
            "    vm: 1",
            "  threads: [7,8]",
            "    0:",
            "      a: 1",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line:?} in\n{text}"
            );
        }
    }
}
