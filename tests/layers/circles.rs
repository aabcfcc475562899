//! What files of one room need of each other, by imports and by calls of methods. Owns the search for
//! circles.
//!
//! A type such as `Store` has its methods in many files, and no import shows which file calls which: calls
//! are found by their names. `name(` counts as a call of a method that only one other file defines for such
//! a type, if what stands before it is something that is usually one: `self`, `store`, `shared`, `log` or
//! the type itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{Source, identifier};

/// What stands before the name in a call of a method, beside the type's name.
const RECEIVERS: [&str; 7] = ["self.", "store.", "shared.", "cache.", "log.", "lock().", "Self::"];

/// Of each file the files that it needs, and what of them.
pub type Needs<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<String>>>;

/// What the files of a room need of each other.
pub fn needs<'a>(files: &[&'a Source]) -> Needs<'a> {
    let mut needs: Needs<'a> = BTreeMap::new();
    let mut add = |from: &'a str, to: &'a str, what: String| {
        needs.entry(from).or_default().entry(to).or_default().insert(what);
    };
    for file in files {
        for path in paths(&file.text) {
            if let Some(target) = target_of(&absolute(&path, &file.module), files)
                && target.name != file.name
            {
                add(&file.name, &target.name, path);
            }
        }
    }
    for method in methods_with_one_file(files) {
        for file in files.iter().filter(|file| file.name.starts_with(&method.scope)) {
            let is_own = ["(", "<"]
                .iter()
                .any(|end| file.text.contains(&format!("fn {}{end}", method.name)));
            if !is_own && calls(&file.text, &method) {
                add(&file.name, method.file, format!("{}()", method.name));
            }
        }
    }
    needs
}

/// A circle of files, if there is one: each needs the next, and the last the first.
pub fn circle<'a>(needs: &Needs<'a>) -> Option<Vec<&'a str>> {
    let mut done = BTreeSet::new();
    needs.keys().find_map(|file| walk(file, needs, &mut Vec::new(), &mut done))
}

fn walk<'a>(
    file: &'a str,
    needs: &Needs<'a>,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Option<Vec<&'a str>> {
    if let Some(start) = path.iter().position(|seen| *seen == file) {
        return Some(path[start..].to_vec());
    }
    if done.contains(file) {
        return None;
    }
    path.push(file);
    let next = needs.get(file).into_iter().flat_map(BTreeMap::keys);
    let found = next.copied().find_map(|next| walk(next, needs, path, done));
    path.pop();
    done.insert(file);
    found
}

/// Paths after `use`, groups taken apart, and those in the code that begin with `crate::`. What a file only
/// shows to others, by `pub use`, it does not need itself.
fn paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("use ") {
        let before = text[..at].lines().next_back().unwrap_or_default();
        let is_needed = text[..at].ends_with('\n') || before.trim().is_empty();
        if let (true, Some(end)) = (is_needed, text[at..].find(';')) {
            let tree: String = text[at + 4..at + end].split_whitespace().collect();
            expand("", &tree, &mut found);
        }
    }
    for (at, marker) in text.match_indices("crate::") {
        let rest = &text[at + marker.len()..];
        let end = rest.find(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
        found.push(format!("crate::{}", &rest[..end.unwrap_or(rest.len())]));
    }
    found
}

fn expand(before: &str, tree: &str, found: &mut Vec<String>) {
    let Some((head, group)) = tree.split_once('{') else {
        found.push(format!("{before}{tree}"));
        return;
    };
    let before = format!("{before}{head}");
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        let ends = depth == 0 && (c == ',' || c == '}');
        if ends && at > start {
            expand(&before, &group[start..at], found);
        }
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if ends {
            start = at + 1;
        }
        if depth < 0 {
            return;
        }
    }
}

/// From the root of the library.
fn absolute(path: &str, module: &str) -> String {
    if let Some(path) = path.strip_prefix("crate::") {
        return path.to_owned();
    }
    let (mut up, mut path) = (module, path);
    while let Some(rest) = path.strip_prefix("super::") {
        up = up.rsplit_once("::").map_or("", |(up, _)| up);
        path = rest;
    }
    format!("{up}::{path}")
}

/// The file whose module is the longest beginning of `path`.
fn target_of<'a>(path: &str, files: &[&'a Source]) -> Option<&'a Source> {
    let is_in = |file: &&&Source| {
        path.strip_prefix(&file.module)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    files.iter().filter(is_in).max_by_key(|file| file.module.len()).copied()
}

/// A method that one file defines, of a type that has methods in several.
struct Method<'a> {
    of: &'a str,
    name: &'a str,
    file: &'a str,
    /// Where the type is known: everywhere, or below a folder if another one has a type of that name.
    scope: String,
}

fn methods_with_one_file<'a>(files: &[&'a Source]) -> Vec<Method<'a>> {
    // By type and scope, and by name: the files that define it.
    let mut methods: BTreeMap<(&str, String), BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for file in files {
        let mut of_type = None;
        for line in file.text.lines() {
            if let Some(rest) = line.strip_prefix("impl ") {
                let name = identifier(rest);
                of_type = (!rest.contains(" for ")).then(|| (name, scope_of(name, file, files)));
            }
            let indented = line.strip_prefix("    ").filter(|line| !line.starts_with(' '));
            let name = indented.and_then(|line| line.split_once("fn ")).map(|(_, name)| name);
            if let (Some(name), Some(of_type)) = (name, &of_type) {
                let by_name = methods.entry(of_type.clone()).or_default();
                by_name.entry(identifier(name)).or_default().insert(&file.name);
            }
        }
    }
    methods.retain(|_, by_name| by_name.values().flatten().collect::<BTreeSet<_>>().len() > 1);
    let mut found = Vec::new();
    for ((of, scope), by_name) in methods {
        for (name, files) in by_name {
            if let (Some(file), 1) = (files.first(), files.len()) {
                found.push(Method { of, name, file, scope: scope.clone() });
            }
        }
    }
    // What two types have could be either's.
    let names: Vec<&str> = found.iter().map(|method| method.name).collect();
    found.retain(|method| names.iter().filter(|name| **name == method.name).count() == 1);
    found
}

/// The folder of the type that `file` means by this name, if several folders have one.
fn scope_of(name: &str, file: &Source, files: &[&Source]) -> String {
    let defines = |source: &&&Source| {
        let is_name = |at: usize| identifier(&source.text[at..]) == name;
        ["struct ", "enum "]
            .iter()
            .any(|kind| source.text.match_indices(kind).any(|(at, kind)| is_name(at + kind.len())))
    };
    let folder =
        |source: &&Source| source.name.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let folders: BTreeSet<String> = files.iter().filter(defines).map(folder).collect();
    let own = folders.iter().filter(|folder| file.name.starts_with(folder.as_str()));
    match folders.len() {
        0 | 1 => String::new(),
        _ => own.max_by_key(|folder| folder.len()).cloned().unwrap_or_default(),
    }
}

fn calls(text: &str, Method { of, name, .. }: &Method<'_>) -> bool {
    let call = format!("{name}(");
    let by_type = format!("{of}::");
    let receivers: Vec<&str> = RECEIVERS.into_iter().chain([by_type.as_str()]).collect();
    text.match_indices(&call).any(|(at, _)| {
        let line = text[..at].lines().next_back().unwrap_or_default();
        let is_whole = |rest: &str| !rest.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let ends = |receiver: &&str| line.strip_suffix(*receiver).is_some_and(is_whole);
        // Alone on its line: it goes on from the line before.
        line.trim_start() == "." || receivers.iter().any(ends)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Vec<Source> {
        files.iter().map(|(name, text)| Source::new(name, text)).collect()
    }

    fn circle_of(files: &[(&str, &str)]) -> Option<Vec<String>> {
        let sources = sources(files);
        let needs = needs(&sources.iter().collect::<Vec<_>>());
        circle(&needs).map(|files| files.into_iter().map(str::to_owned).collect())
    }

    #[test]
    fn a_circle_of_imports_is_found() {
        let a = "use crate::room::{b::B, other::{c::C, D}};";
        assert_eq!(circle_of(&[("room/a.rs", a), ("room/b.rs", "use std::io;")]), None);
        let found = circle_of(&[
            ("room/a.rs", a),
            ("room/other/c.rs", "use super::b::B;"),
            ("room/other/b.rs", "fn f() -> crate::room::a::A {}"),
        ]);
        assert_eq!(found.unwrap().len(), 3);
        let shown = [("room/mod.rs", "pub use a::A;"), ("room/a.rs", "use super::C;")];
        assert_eq!(circle_of(&shown), None);
    }

    #[test]
    fn a_circle_of_calls_is_found() {
        let a = "impl Store {\n    pub fn one(&self) {\n        self.two();\n    }\n}";
        let b = "impl Store {\n    fn two(&self) {\n        x\n            .three()\n    }\n}";
        assert_eq!(circle_of(&[("room/a.rs", a), ("room/b.rs", b)]), None);
        let b = b.replace("x\n            .three", "self.one");
        assert_eq!(circle_of(&[("room/a.rs", a), ("room/b.rs", &b)]).unwrap().len(), 2);
        // Its own method of that name, and a name that is only the end of another.
        let own = "impl Store {\n    fn two(&self) {\n        self.some_one();\n        y.one();\n    }\n}";
        assert_eq!(circle_of(&[("room/a.rs", a), ("room/b.rs", own)]), None);
    }
}
