//! Which files of one room depend on each other, by imports and by calls of methods. Owns the
//! search for circles.
//!
//! A type such as `Store` has its methods in many files, and no import shows which file calls
//! which: calls are found by their names. `name(` counts as a call of a method that only one other
//! file defines for such a type, if the text before it is usually a value of such a type.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{Source, identifier};

/// Longest chain of re-exports.
const SHOWN_TIMES_MAX: usize = 4;

/// For each file the files that it needs, and the names it uses of them.
pub type Needs<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<String>>>;

/// The dependencies between the files of a room.
pub fn needs<'a>(files: &[&'a Source]) -> Needs<'a> {
    let mut needs: Needs<'a> = BTreeMap::new();
    let mut add = |from: &'a str, to: &'a str, what: String| {
        needs.entry(from).or_default().entry(to).or_default().insert(what);
    };
    let shown: BTreeMap<String, String> = files.iter().flat_map(|file| shown(file)).collect();
    for file in files {
        for path in paths(&file.text) {
            let path = origin(absolute(&path, &file.module), &shown);
            if let Some(target) = target_of(&path, files)
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

/// Paths after `use`, groups taken apart, and those in the code. `pub use` does not count.
fn paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut code = text.to_owned();
    for (is_shown, at, end) in uses(text) {
        if !is_shown {
            expand("", &text[at..end].split_whitespace().collect::<String>(), &mut found);
        }
        code.replace_range(at..end, &" ".repeat(end - at));
    }
    for (at, _) in code.match_indices("::") {
        // Only the first part of a path counts.
        let start = code[..at].rfind(|c: char| !is_of_path(c)).map_or(0, |before| before + 1);
        let is_visibility = code[..start].ends_with("pub(in ");
        if code[start..at].contains(':') || is_visibility {
            continue;
        }
        let end = code[at..]
            .find(|c: char| !is_of_path(c) && c != ':')
            .map_or(code.len(), |end| at + end);
        found.push(code[start..end].trim_end_matches(':').to_owned());
    }
    found
}

fn is_of_path(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == ':'
}

/// The text after each `use`, its range, and whether it is re-exported.
fn uses(text: &str) -> Vec<(bool, usize, usize)> {
    let mut found = Vec::new();
    for (at, marker) in text.match_indices("use ") {
        let before = text[..at].rsplit('\n').next().unwrap_or_default().trim();
        let is_shown = before.starts_with("pub");
        if (is_shown || before.is_empty())
            && let Some(len) = text[at..].find(';')
        {
            found.push((is_shown, at + marker.len(), at + len));
        }
    }
    found
}

/// Re-exports of a file: the path, and where the item is.
fn shown(file: &Source) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (_, at, end) in uses(&file.text).into_iter().filter(|(is_shown, ..)| *is_shown) {
        let mut paths = Vec::new();
        expand("", &file.text[at..end].split_whitespace().collect::<String>(), &mut paths);
        for path in paths {
            let name = path.rsplit("::").next().unwrap();
            found.push((format!("{}::{name}", file.module), absolute(&path, &file.module)));
        }
    }
    found
}

/// Where the item re-exported at `path` is.
fn origin(mut path: String, shown: &BTreeMap<String, String>) -> String {
    for _ in 0..SHOWN_TIMES_MAX {
        let is_at = |name: &str| {
            path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let longest =
            shown.iter().filter(|(name, _)| is_at(name)).max_by_key(|(name, _)| name.len());
        match longest {
            Some((name, from)) => path = format!("{from}{}", &path[name.len()..]),
            None => break,
        }
    }
    path
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
    // A method of two types could belong to either.
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

/// Whether the receiver is usually of its type: `self`, a variable with the type's name, a lock
/// guard, or the type itself.
fn calls(text: &str, Method { of, name, .. }: &Method<'_>) -> bool {
    let call = format!("{name}(");
    let own_name = format!("{}.", of.to_lowercase());
    let by_type = format!("{of}::");
    let receivers = ["self.", "lock().", "Self::", &own_name, &by_type];
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
        // Through a re-export, and in the code.
        let shown = [
            ("room/mod.rs", "pub use a::A;"),
            ("room/a.rs", "fn f() { super::b::f() }"),
            ("room/b.rs", "use super::A;"),
        ];
        assert_eq!(circle_of(&shown).unwrap(), ["room/a.rs", "room/b.rs"]);
        assert_eq!(circle_of(&shown[..2]), None);
        let calls = [("room/mod.rs", "fn f() { a::f() }"), ("room/a.rs", "use super::C;")];
        assert_eq!(circle_of(&calls).unwrap().len(), 2);
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
