//! Goal: modules import downwards only. Method: read every source file of the library, find the
//! modules of this crate that it names, and compare their places in the order of layers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Top to bottom. A module may import what stands in a later row; modules of one row do not
/// import one another.
const LAYERS: [&[&str]; 10] = [
    &["cli"],
    &["daemon"],
    &["server"],
    &["metrics"],
    &["config"],
    &["cache"],
    &["store"],
    &["format"],
    &["device"],
    &["clock", "deadlines", "histogram", "units", "planted", "allocator"],
];

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Source text without comments and string contents would need a parser; dropping line comments
/// is enough for code that rustfmt has laid out.
fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
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

fn module_of(path: &Path, root: &Path) -> String {
    let first = path.strip_prefix(root).unwrap().iter().next().unwrap();
    Path::new(first).file_stem().unwrap().to_string_lossy().into_owned()
}

/// The modules above `module` that `text` imports, or a complaint that it has no layer.
fn violations(module: &str, text: &str) -> Vec<String> {
    let Some(own) = layer_of(module) else {
        return vec!["has no layer: add it to tests/layers.rs".to_owned()];
    };
    imports(&without_comments(text))
        .into_iter()
        .filter(|imported| imported != module)
        .filter(|imported| layer_of(imported).is_some_and(|layer| layer <= own))
        .map(|imported| format!("imports crate::{imported}"))
        .collect()
}

#[test]
fn imports_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 10, "the sources are not where they are expected");
    let mut wrong = Vec::new();
    for path in files {
        let module = module_of(&path, &root);
        if module == "lib" || module == "main" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let found = violations(&module, &text);
        wrong.extend(found.into_iter().map(|what| format!("{}: {what}", path.display())));
    }
    assert!(wrong.is_empty(), "imports that do not point down:\n{}", wrong.join("\n"));
}

#[test]
fn the_finder_sees_every_form_of_import() {
    let text = "use crate::store::{a, b};\nuse crate::{cache::{x, y}, units};\n\
                pub(crate) use crate::device;\nlet x: crate::clock::Clock; // crate::cli\n\
                my_crate::other::thing();";
    let found = imports(&without_comments(text));
    let expected = ["cache", "clock", "device", "store", "units"];
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn an_import_that_points_up_or_sideways_is_found() {
    assert_eq!(violations("store", "use crate::server::admin;"), ["imports crate::server"]);
    assert_eq!(violations("clock", "use crate::units::Period;"), ["imports crate::units"]);
    assert!(violations("server", "use crate::{metrics, config, cache};").is_empty());
    assert_eq!(violations("extra", "").len(), 1);
}
