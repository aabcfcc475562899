//! Writes the manual pages and the completions of shells: `cargo run --example manual -- FOLDER`. A program
//! of its own, run where a package is built: the daemon does not carry what makes them.
//!
//! Pages of commands follow from the command line itself, the page of the configuration file from the comments
//! of `config/rawcached.toml`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::{Command, ValueEnum as _};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// The configuration with all settings, each under the comment that explains it.
const CONFIGURATION: &str = include_str!("../config/rawcached.toml");

/// What stands below every page, and above it.
const SOURCE: &str = concat!("rawcached ", env!("CARGO_PKG_VERSION"));
const MANUAL: &str = "rawcached manual";

/// Of the commands whose help does not tell.
const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "Done."),
    ("1", "A key is missing, damage was found, or the daemon failed."),
    ("2", "The command or the configuration is wrong, or the command could not be carried out."),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("RAWCACHED_CONFIG", "Names the configuration file where --config does not."),
    ("RAWCACHED_SECTION_KEY", "Sets a key of the configuration, such as RAWCACHED_RAM_SIZE."),
    ("RUST_LOG", "What is logged, such as rawcached::store=debug; outranks log.level."),
    ("NO_COLOR", "Leaves colours out of what is logged."),
];

const FILES: &[(&str, &str)] = &[
    ("/etc/rawcached/rawcached.toml", "The configuration that the service reads."),
    ("/run/rawcached/", "The sockets of the service."),
    ("rawcached-data/", "Made by serve in its working directory where it has no configuration."),
];

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("name a folder")?;
    let written = write_to(&folder)?;
    println!("{} files in {}", written.len(), folder.display());
    Ok(())
}

/// Writes all pages and completions; gives their paths.
///
/// # Errors
/// The folder cannot be made or written to, or the configuration is not of lines that are known.
pub fn write_to(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut command = rawcached::cli::command().disable_help_subcommand(true);
    command.build();
    let mut written = Vec::new();
    write_commands(&command, None, folder, &mut written)?;
    let path = folder.join("rawcached.toml.5");
    fs::write(&path, configuration_page()?)?;
    written.push(path);
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        ensure!(Shell::value_variants().contains(&shell), "{shell} is known");
        written.push(clap_complete::generate_to(shell, &mut command, "rawcached", folder)?);
    }
    Ok(written)
}

/// The page of a command, and those of the commands below it.
fn write_commands(
    command: &Command,
    above: Option<&str>,
    folder: &Path,
    written: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    let name = match above {
        Some(above) => format!("{above}-{}", command.get_name()),
        None => command.get_name().to_owned(),
    };
    let titled = command.clone().display_name(name.clone());
    let man = Man::new(titled).source(SOURCE).manual(MANUAL);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::new();
    match command.get_after_help() {
        Some(told) => rest.control("SH", ["EXIT STATUS"]).text([roman(told.to_string())]),
        None => section(&mut rest, "EXIT STATUS", EXIT_STATUS),
    };
    if above.is_none() {
        section(&mut rest, "ENVIRONMENT", ENVIRONMENT);
        section(&mut rest, "FILES", FILES);
    }
    rest.control("SH", ["SEE ALSO"]).text(see_also(above));
    rest.to_writer(&mut page)?;
    let path = folder.join(format!("{name}.1"));
    fs::write(&path, page)?;
    written.push(path);
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_commands(below, Some(&name), folder, written)?;
    }
    Ok(())
}

fn section<'a>(page: &'a mut Roff, title: &str, items: &[(&str, &str)]) -> &'a mut Roff {
    page.control("SH", [title]);
    for (name, meaning) in items {
        page.control("TP", []).text([bold(*name)]).text([roman(*meaning)]);
    }
    page
}

fn see_also(above: Option<&str>) -> Vec<Inline> {
    let mut pages = match above {
        Some(above) => vec![bold(above), roman("(1), ")],
        None => Vec::new(),
    };
    pages.extend([bold("rawcached.toml"), roman("(5)")]);
    pages
}

/// A line of the configuration file.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Empty,
    Comment(&'a str),
    Table(&'a str),
    /// Its name and its default.
    Setting(&'a str, &'a str),
}

impl<'a> Line<'a> {
    /// Settings and tables that are off have a `#` right before them, comments a space after it.
    fn parse(line: &'a str) -> anyhow::Result<Line<'a>> {
        let text = match line.strip_prefix('#') {
            None => line,
            Some("") => return Ok(Line::Comment("")),
            Some(comment) if comment.starts_with(' ') => return Ok(Line::Comment(&comment[1..])),
            Some(setting) => setting,
        };
        match text.split_once(" = ") {
            _ if text.is_empty() => Ok(Line::Empty),
            _ if text.starts_with('[') => Ok(Line::Table(text)),
            Some((name, value)) => Ok(Line::Setting(name, value)),
            None => anyhow::bail!("config/rawcached.toml has a line that is no setting: {line}"),
        }
    }
}

/// `rawcached.toml(5)`.
fn configuration_page() -> anyhow::Result<String> {
    let mut page = Roff::new();
    page.control("TH", ["rawcached.toml", "5", "", SOURCE, MANUAL]);
    page.control("SH", ["NAME"]);
    page.text([roman("rawcached.toml - configuration of the cache daemon rawcached")]);
    page.control("SH", ["DESCRIPTION"]);
    let mut comment = String::new();
    for line in CONFIGURATION.lines() {
        match Line::parse(line)? {
            Line::Comment(text) => writeln!(comment, "{text}")?,
            Line::Table(name) => {
                page.control("SH", [name]);
                paragraphs(&mut page, &std::mem::take(&mut comment), "PP");
            }
            Line::Setting(name, default) => {
                page.control("TP", []).text([bold(name), roman(" = "), italic(default)]);
                paragraphs(&mut page, &std::mem::take(&mut comment), "IP");
            }
            // What stands by itself, as the head of the file.
            Line::Empty => paragraphs(&mut page, &std::mem::take(&mut comment), "PP"),
        }
    }
    ensure!(comment.is_empty(), "config/rawcached.toml ends with a comment: {comment}");
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("rawcached"), roman("(1), "), bold("rawcached-serve"), roman("(1)")]);
    Ok(page.to_roff())
}

/// A comment: lines that are indented further are an example, empty ones end a paragraph; `next` begins another.
fn paragraphs(page: &mut Roff, comment: &str, next: &str) {
    for (index, paragraph) in comment.trim().split("\n\n").enumerate() {
        if index > 0 {
            page.control(next, []);
        }
        let mut is_example = false;
        for line in paragraph.lines() {
            let example = line.strip_prefix("    ");
            if is_example || example.is_some() {
                page.control("br", []);
            }
            is_example = example.is_some();
            page.text([roman(example.unwrap_or(line))]);
        }
    }
}
