//! The configuration file as text. Owns the mapping from a position in the text to a key and a line.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::plain_words::plainly;
use super::{Config, ConfigError, Origin};

/// The text of a configuration file.
pub struct File {
    path: PathBuf,
    text: String,
}

impl File {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read or is not UTF-8.
    pub fn read(path: &Path) -> Result<File, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Ok(File { path: path.to_owned(), text })
    }

    /// A table of what is written, whatever it is.
    ///
    /// # Errors
    /// The file is not TOML.
    pub fn table(&self) -> Result<toml::Table, ConfigError> {
        toml::from_str(&self.text).map_err(|error| self.refuse(&error))
    }

    /// The settings, with defaults for what is not written, and a table of only what is written.
    ///
    /// # Errors
    /// The file is not TOML, has an unknown key, or a value of the wrong kind.
    pub fn parse(&self) -> Result<(Config, toml::Table), ConfigError> {
        let table = self.table()?;
        let config = toml::from_str(&self.text).map_err(|error| self.refuse(&error))?;
        Ok((config, table))
    }

    /// Where `key` (as in `server.admin`, or `device[1]`) is written, if it is.
    #[must_use]
    pub fn locate(&self, key: &str) -> Option<Origin> {
        let table = DeTable::parse(&self.text).ok()?;
        let mut found = None;
        visit_table(table.get_ref(), "", &mut |path, span| {
            if found.is_none() && path == key {
                found = Some(span.start);
            }
        });
        found.map(|at| self.origin(at))
    }

    fn refuse(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        let origin = self.origin(span.start);
        let reason = error.message().trim_end().replace('\n', ", ");
        let key = self.key_at(&span);
        let reason = plainly(&reason, key.as_deref());
        match key {
            Some(key) => ConfigError::Setting { origin, key, reason },
            None => ConfigError::Syntax { origin, reason },
        }
    }

    /// The innermost key whose name or value covers the start of `span`.
    fn key_at(&self, span: &Range<usize>) -> Option<String> {
        let table = DeTable::parse(&self.text).ok()?;
        let mut found: Option<(usize, String)> = None;
        visit_table(table.get_ref(), "", &mut |path, covered| {
            let closer = found.as_ref().is_none_or(|(len, _)| covered.len() <= *len);
            if covered.contains(&span.start) && closer {
                found = Some((covered.len(), path.to_owned()));
            }
        });
        found.map(|(_, path)| path)
    }

    fn origin(&self, at: usize) -> Origin {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Origin::File { path: self.path.clone(), line }
    }
}

/// Calls `see` with the path of every key and the text from its name to the end of its value.
fn visit_table(table: &DeTable<'_>, above: &str, see: &mut dyn FnMut(&str, Range<usize>)) {
    for (name, value) in table {
        let dot = if above.is_empty() { "" } else { "." };
        let path = format!("{above}{dot}{}", name.get_ref());
        let (name, covered) = (name.span(), value.span());
        see(&path, name.start.min(covered.start)..covered.end.max(name.end));
        visit_value(value, &path, see);
    }
}

fn visit_value(value: &Spanned<DeValue<'_>>, path: &str, see: &mut dyn FnMut(&str, Range<usize>)) {
    match value.get_ref() {
        DeValue::Table(table) => visit_table(table, path, see),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if let DeValue::Table(table) = item.get_ref() {
                    // The first of several tables has the plain name: mostly there is one.
                    let path =
                        if index == 0 { path.to_owned() } else { format!("{path}[{index}]") };
                    see(&path, item.span());
                    visit_table(table, &path, see);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File { path: "c.toml".into(), text: text.to_owned() }
    }

    fn refused(text: &str) -> String {
        file(text).parse().unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_value_names_line_and_key() {
        let message = refused("[ram]\n\nsize = \"12XB\"\n");
        assert!(message.starts_with("c.toml:3: ram.size: \"12XB\" is not a size"), "{message}");
        let message = refused("[[device]]\npath = \"/x\"\nio = \"mmap\"");
        assert!(message.starts_with("c.toml:3: device.io: \"mmap\" is not known"), "{message}");
        let message = refused("[server]\nworkers = -1");
        assert!(message.starts_with("c.toml:2: server.workers: "), "{message}");
        let message = refused("[server]\nmemcached = [\n \"unix:/a\",\n \"nowhere\",\n]");
        assert!(message.starts_with("c.toml:4: server.memcached: \"nowhere\""), "{message}");
    }

    #[test]
    fn a_value_of_the_wrong_type_comes_with_what_to_write() {
        for (text, expected) in [
            ("[device]\npath = \"/x\"", "c.toml:1: device: a table stands where a list of tables"),
            ("[server]\nmemcached = \"unix:/a\"", "belongs: write [\"unix:/a\"]"),
            ("[server]\nworkers = \"x\"", "c.toml:2: server.workers: the text \"x\" stands"),
            ("[server]\nsocket_mode = 0o660", ": write the octal digits in quotes"),
            ("[server]\nsocket_mode = 0660", "write a mode in quotes, such as \"0660\""),
            ("[[device]]\npath = 1", ": write \"1\""),
        ] {
            let message = refused(text);
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn an_unknown_key_or_table_is_named() {
        let message = refused("[server]\nadmin = \"127.0.0.1:1\"\nadmim = 1");
        assert!(message.starts_with("c.toml:3: server.admim: unknown field"), "{message}");
        let message = refused("[sever]\nx = 1");
        assert!(message.starts_with("c.toml:1: sever"), "{message}");
    }

    #[test]
    fn broken_syntax_names_the_line() {
        let message = refused("[server]\nadmin = \n");
        assert!(message.starts_with("c.toml:2: "), "{message}");
    }

    #[test]
    fn keys_are_located_in_tables_and_arrays_of_tables() {
        let file =
            file("ram.size = \"1GiB\"\n[[device]]\npath = \"/a\"\n[[device]]\npath = \"/b\"");
        let line = |key| file.locate(key).map(|origin| origin.to_string());
        assert_eq!(line("ram.size").as_deref(), Some("c.toml:1"));
        assert_eq!(line("device.path").as_deref(), Some("c.toml:3"));
        assert_eq!(line("device[1]").as_deref(), Some("c.toml:4"));
        assert_eq!(line("log.level"), None);
    }
}
