//! The source files of the library as text. Owns what counts as code: no comments, no tests in a file.

use std::fs;
use std::path::{Path, PathBuf};

/// One file.
pub struct Source {
    /// Below `src`, as in `store/log/mod.rs`.
    pub name: String,
    /// Its module, as in `store::log`.
    pub module: String,
    pub text: String,
}

impl Source {
    pub fn new(name: &str, text: &str) -> Source {
        let module = name.trim_end_matches(".rs").replace('/', "::");
        let module = module.trim_end_matches("::mod").to_owned();
        Source { name: name.to_owned(), module, text: code_of(text) }
    }

    /// The first part of its path.
    pub fn room(&self) -> &str {
        self.module.split("::").next().unwrap()
    }
}

/// Without line comments and without the tests at its end: enough for code that rustfmt has laid out.
fn code_of(text: &str) -> String {
    let tests = text.find("\nmod tests {").unwrap_or(text.len());
    let lines = text[..tests].lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// All files of the library but those that hold tests only.
pub fn all() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &mut found);
    let sources = found.iter().map(|path| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
        Source::new(name, &fs::read_to_string(path).unwrap())
    });
    sources.filter(|source| !source.name.ends_with("tests.rs")).collect()
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The identifier that `text` begins with.
pub fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}
