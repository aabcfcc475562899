//! Goal: modules import downwards only. Method: read every source file of the library, find the
//! modules of this crate that it names, and compare their places in the order of layers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod circles;
mod sources;

use std::collections::BTreeSet;

use sources::{Source, identifier};

/// Top to bottom. A module may import modules of later rows, but none of its own row.
const LAYERS: [&[&str]; 12] = [
    &["cli"],
    &["daemon"],
    &["server"],
    &["metrics"],
    &["config"],
    &["http_cache"],
    &["cache"],
    &["inspect"],
    &["store"],
    &["format"],
    &["device"],
    &["clock", "deadlines", "fair_memory", "histogram", "units", "planted", "allocator"],
];

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The first-level modules that `text` names after `crate::`, groups in braces included.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, marker) in text.match_indices("crate::") {
        let part_of_a_word = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if part_of_a_word {
            continue;
        }
        let rest = &text[at + marker.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            for (index, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if depth == 0 && start && c.is_alphabetic() => {
                        found.insert(identifier(&group[index..]).to_owned());
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.insert(identifier(rest).to_owned());
        }
    }
    found
}

/// The modules above `module` that `text` imports, or a complaint that it has no layer.
fn violations(module: &str, text: &str) -> Vec<String> {
    let Some(own) = layer_of(module) else {
        return vec!["has no layer: add it to tests/layers".to_owned()];
    };
    imports(text)
        .into_iter()
        .filter(|imported| imported != module)
        // A name without a layer is re-exported at the root, not meant for the modules below it.
        .filter(|imported| layer_of(imported).is_none_or(|layer| layer <= own))
        .map(|imported| format!("imports crate::{imported}"))
        .collect()
}

#[test]
fn imports_point_down() {
    let sources = sources::all();
    assert!(sources.len() > 10, "the sources are not where they are expected");
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| !["lib", "main"].contains(&source.room())) {
        let found = violations(source.room(), &source.text);
        wrong.extend(found.into_iter().map(|what| format!("{}: {what}", source.name)));
    }
    assert!(wrong.is_empty(), "imports that do not point down:\n{}", wrong.join("\n"));
}

/// In a room files have an order too. A room's own files import from the file that defines an item,
/// not from the room's `mod.rs`, which re-exports it to others.
#[test]
fn no_files_of_a_room_need_each_other() {
    let sources = sources::all();
    let rooms: BTreeSet<&str> = sources.iter().map(Source::room).collect();
    let (mut found, mut wrong) = (0, Vec::new());
    for room in rooms {
        let files: Vec<&Source> = sources.iter().filter(|source| source.room() == room).collect();
        let needs = circles::needs(&files);
        found += needs.values().map(|needs| needs.len()).sum::<usize>();
        if let Some(circle) = circles::circle(&needs) {
            let next = circle.iter().cycle().skip(1);
            let steps = circle
                .iter()
                .zip(next)
                .map(|(from, to)| format!("{from} needs of {to}: {:?}", needs[from][to]));
            wrong.push(format!("a circle in {room}:\n{}", steps.collect::<Vec<_>>().join("\n")));
        }
    }
    assert!(found > 500, "needs are found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A longer file should be split.
#[test]
fn no_file_is_longer_than_500_lines() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for source in sources::all() {
        let lines = std::fs::read_to_string(root.join(&source.name)).unwrap().lines().count();
        assert!(lines <= 500, "{} has {lines} lines", source.name);
    }
}

/// What a user of the library sees of it at first.
#[test]
fn the_root_shows_at_most_60_names() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let text = std::fs::read_to_string(root).unwrap();
    let shown = text.split("\npub use ").skip(1).map(|rest| rest.split(';').next().unwrap());
    let names = shown.flat_map(|list| {
        let names = list.split_once('{').map_or(list, |(_, names)| names.trim_end_matches('}'));
        names.split(',').filter(|name| !name.trim().is_empty())
    });
    let count = names.count();
    println!("{count} names at the root");
    assert!((20..=60).contains(&count), "{count} names");
}

#[test]
fn the_finder_sees_every_form_of_import() {
    let text = "use crate::store::{a, b};\nuse crate::{cache::{x, y}, units};\n\
                pub(crate) use crate::device;\nlet x: crate::clock::Clock; // crate::cli\n\
                my_crate::other::thing();";
    let found = imports(&Source::new("a.rs", text).text);
    let expected = ["cache", "clock", "device", "store", "units"];
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn an_import_that_points_up_or_sideways_is_found() {
    assert_eq!(violations("store", "use crate::server::admin;"), ["imports crate::server"]);
    assert_eq!(violations("clock", "use crate::units::Period;"), ["imports crate::units"]);
    assert!(violations("server", "use crate::{metrics, config, cache};").is_empty());
    assert_eq!(violations("extra", "").len(), 1);
    assert_eq!(violations("store", "use crate::Cache;"), ["imports crate::Cache"]);
}
