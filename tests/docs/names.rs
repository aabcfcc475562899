//! What documents name in `code` is there: files, targets of cargo, settings, metrics, tests, and the
//! messages that operating.md explains. CHANGELOG.md may name what is gone. The words that a setting
//! takes are all in its help and in the configuration file.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::binary;

use super::{Document, documents, lines_outside_of_code};

/// Messages in operating.md that other programs print.
const OF_OTHERS: &[&str] = &["Permission denied", "File too large"];

/// Names of lines that the memcached command `stats` has besides memcached's own, after `rawcached_`.
const OF_STATS: &[&str] = &["version"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// The text of every Rust file below a folder, without comments, with strings that go on in the next
/// line joined.
fn sources(folder: &str) -> String {
    let (mut text, mut folders) = (String::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(end) if end == "rs" => text += &fs::read_to_string(path).unwrap(),
                _ => (),
            }
        }
    }
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let mut parts = text.split("\\\n");
    let mut joined = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        joined += part.trim_start();
    }
    joined
}

/// The documents that describe the present.
fn present() -> Vec<Document> {
    documents().into_iter().filter(|document| document.name != "CHANGELOG.md").collect()
}

/// Prose, with items that go on in the next line joined, so that code which is broken there is whole.
fn prose(document: &Document) -> String {
    let lines = lines_outside_of_code(&document.text).into_iter();
    let lines = lines.map(|line| if line.is_empty() { "\n" } else { line.trim_start() });
    lines.collect::<Vec<_>>().join(" ")
}

/// Text between backquotes.
fn spans(prose: &str) -> Vec<&str> {
    prose.split('`').skip(1).step_by(2).collect()
}

fn words(document: &Document) -> Vec<String> {
    let prose = prose(document);
    spans(&prose).iter().flat_map(|span| span.split_whitespace()).map(str::to_owned).collect()
}

#[test]
fn every_file_that_is_named_is_there() {
    let folders =
        [".ci/", "benches/", "config/", "docs/", "examples/", "src/", "systemd/", "tests/"];
    let mut found = 0;
    for document in present() {
        for word in words(&document) {
            if !folders.iter().any(|folder| word.starts_with(folder)) || word.contains('*') {
                continue;
            }
            // A module may stand for its file; READMEs of folders name what is in theirs.
            let folders = [root(), document.path.parent().unwrap()];
            let paths = folders.map(|folder| folder.join(word.trim_end_matches('/')));
            let is_there =
                paths.iter().any(|path| path.exists() || path.with_extension("rs").exists());
            assert!(is_there, "{}: {word}", document.name);
            found += 1;
        }
    }
    assert!(found > 20, "files are found: {found}");
}

#[test]
fn every_target_of_cargo_is_there() {
    let mut found = 0;
    for document in present() {
        let words: Vec<&str> = document.text.split([' ', '\n', '`']).collect();
        for pair in words.windows(2) {
            let name = pair[1].trim_end_matches(['.', ',', ':', ';', ')']);
            let folder = match pair[0] {
                "--test" => "tests",
                "--bench" => "benches",
                "--example" if document.name.starts_with("fuzz/") => "fuzz/examples",
                "--example" => "examples",
                _ => continue,
            };
            let path = root().join(folder).join(name);
            let is_there = path.with_extension("rs").exists() || path.join("main.rs").exists();
            assert!(is_there, "{}: {} {name}", document.name, pair[0]);
            found += 1;
        }
    }
    assert!(found > 15, "targets are found: {found}");
}

#[test]
fn every_setting_is_one() {
    let (mut settings, mut section) = (BTreeSet::new(), String::new());
    let is_setting = |line: &str| line.starts_with(|c: char| c == '[' || c.is_ascii_lowercase());
    for line in read("config/rawcached.toml").lines() {
        // Prose has a space behind its `#`, settings of tables that need not be there have none.
        let setting = line.strip_prefix('#').filter(|rest| is_setting(rest));
        let line = setting.unwrap_or(line);
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            settings.insert(format!("{section}.{key}"));
        }
    }
    let sections: BTreeSet<&str> =
        settings.iter().filter_map(|name| name.split('.').next()).collect();
    let mut found = 0;
    for document in present() {
        for word in words(&document) {
            let name = word.trim_end_matches([',', ':', ';']);
            let Some((section, key)) = name.split_once('.') else { continue };
            let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if sections.contains(section) && is_key && key != "rs" && key != "md" {
                assert!(settings.contains(name), "{}: {name}", document.name);
                found += 1;
            }
        }
    }
    assert!(found > 20, "settings are found: {found}");
}

#[test]
fn every_metric_is_exported() {
    let list = read("docs/metrics.md");
    let items = list.lines().filter_map(|line| line.strip_prefix("- `rawcached_"));
    let metrics: BTreeSet<&str> = items.map(|item| item.split('`').next().unwrap()).collect();
    let mut found = 0;
    for document in present() {
        for (at, prefix) in document.text.match_indices("rawcached_") {
            if document.text[..at].ends_with('_') {
                // A field that has become a variable of nginx.
                continue;
            }
            let rest = &document.text[at + prefix.len()..];
            let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_'));
            let name = &rest[..end.unwrap_or(rest.len())];
            let name = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(name);
            let is_there = name.is_empty() || metrics.contains(name) || OF_STATS.contains(&name);
            assert!(is_there, "{}: rawcached_{name}", document.name);
            found += 1;
        }
    }
    assert!(found > 100, "metrics are found: {found}");
}

/// The last part of a path, such as `module::a_test_that...`, without the part that the dots stand
/// for; `None` if it is no test.
fn test_name(span: &str) -> Option<&str> {
    let (_, name) = span.rsplit_once("::")?;
    let name = name.trim_start_matches("..._").trim_end_matches("...").trim_end_matches('_');
    let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (is_name && name.matches('_').count() >= 2).then_some(name)
}

#[test]
fn every_test_that_is_named_is_there() {
    let code = sources("tests") + &sources("src");
    let mut found = 0;
    for document in present() {
        if !["docs/operating.md", "docs/reliability.md", "docs/testing.md"]
            .contains(&&*document.name)
        {
            continue;
        }
        let prose = prose(&document);
        for span in spans(&prose) {
            let Some(name) = test_name(span) else { continue };
            // A beginning, or what follows dots.
            let is_there = match span.contains("..._") {
                true => code.contains(&format!("_{name}")),
                false => code.contains(&format!("fn {name}")),
            };
            assert!(is_there, "{}: {span}", document.name);
            found += 1;
        }
    }
    assert!(found > 150, "tests are found: {found}");
}

/// Messages that the troubleshooting list explains.
fn messages(operating: &str) -> Vec<String> {
    let list = operating.split("\n## Troubleshooting\n").nth(1).unwrap();
    let items = list.split("\n- ").skip(1);
    let messages = items.flat_map(|item| {
        let item = item.split_whitespace().collect::<Vec<_>>().join(" ");
        let ends = [item.find("`: "), item.find("**: ")];
        let end = ends.into_iter().flatten().min().unwrap_or(item.len() - 1);
        spans(&item[..=end]).into_iter().map(str::to_owned).collect::<Vec<_>>()
    });
    messages.filter(|message| message.contains(' ')).collect()
}

/// Whether all parts of a message stand in the source. Colons separate them; in place of three dots and
/// of words in capitals something else is printed.
fn is_printed(message: &str, code: &str) -> bool {
    let parts = message.split("...").flat_map(|part| part.split(": ")).flat_map(|part| {
        let mut parts = vec![String::new()];
        for word in part.split_whitespace() {
            match word.chars().any(|c| c.is_ascii_lowercase()) && !word.contains('/') {
                true => *parts.last_mut().unwrap() += &format!(" {word}"),
                false => parts.push(String::new()),
            }
        }
        parts
    });
    let mut parts = parts.map(|part| part.trim().trim_end_matches(':').to_owned());
    parts.all(|part| code.contains(&part))
}

#[test]
fn every_message_that_is_explained_is_printed() {
    let code = sources("src");
    let messages = messages(&read("docs/operating.md"));
    for message in &messages {
        let is_known = OF_OTHERS.contains(&&**message) || is_printed(message, &code);
        assert!(is_known, "docs/operating.md explains what nothing prints: {message}");
    }
    assert!(messages.len() > 20, "messages are found: {messages:?}");
    assert!(is_printed("a FILE is ... wrong", "a {} is {} wrong"));
    assert!(!is_printed("a FILE is ... wrong", "a {} is {} right"));
}

/// Messages that the page quotes elsewhere: at least four words between quotation marks.
#[test]
fn every_quoted_message_is_printed() {
    let code = sources("src").to_lowercase();
    let documents = documents();
    let operating = documents.iter().find(|document| document.name == "docs/operating.md").unwrap();
    let prose = prose(operating);
    let without_code: String = prose.split('`').step_by(2).collect();
    let quoted = without_code.split('"').skip(1).step_by(2);
    let messages: Vec<&str> = quoted.filter(|text| text.split_whitespace().count() >= 4).collect();
    for message in &messages {
        let is_printed = code.contains(&message.to_lowercase());
        assert!(is_printed, "docs/operating.md quotes what nothing prints: {message}");
    }
    assert!(messages.len() >= 3, "messages are found: {messages:?}");
}

#[test]
fn every_word_that_a_setting_takes_is_in_its_help() {
    let help = Command::new(binary::path()).args(["serve", "--help"]).output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    let (choices, configuration) = (read("src/config/choice.rs"), read("config/rawcached.toml"));
    let lists = choices.split("unknown(other, \"").skip(1);
    let lists: Vec<&str> = lists.filter_map(|rest| rest.split('"').next()).collect();
    for list in &lists {
        let (words, last) = list.rsplit_once(", ").unwrap();
        let told = format!("{words} or {last}");
        assert!(help.contains(&told), "the help of serve does not say {told:?}");
        for word in list.split(", ") {
            let is_there = configuration.contains(&format!("\"{word}\""));
            assert!(is_there, "config/rawcached.toml does not say {word:?}");
        }
    }
    assert!(lists.len() >= 6, "settings are found: {lists:?}");
}
