//! Where settings come from. Owns their precedence (flag, environment, file, default) and which of them
//! is blamed for a refused value.

use std::ffi::OsString;
use std::path::PathBuf;

use super::broken::Broken;
use super::check::check;
use super::file::File;
use super::key::{TEST_VARIABLE_PREFIX, VARIABLE_PREFIX};
use super::mistakes::{MISTAKES_MAX, give_up, take_out, wrong_alone};
use super::plain_words::plainly;
use super::proxy_flags::ProxyFlags;
use super::shown::shown;
use super::{
    Available, Config, ConfigError, EMBEDDED_PROXY_SOCKET, FILE_VARIABLE, KEYS, Key, MemoryPlan,
    Origin,
};

/// What `serve` uses when no file is named.
const EMBEDDED: &str = r#"
[server]
memcached = ["unix:rawcached-data/memcached.sock"]
http = ["unix:rawcached-data/http.sock"]
[[device]]
path = "rawcached-data/cache.img"
size = "1GiB"
"#;

/// One setting from outside the file.
#[derive(Clone, Debug)]
pub struct Override {
    key: &'static Key,
    text: String,
    origin: Origin,
}

/// The file, environment variables and flags of one start; can be loaded again.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    /// In rising precedence.
    overrides: Vec<Override>,
    proxy: Option<ProxyFlags>,
}

impl Sources {
    /// Settings from the environment: the file that [`FILE_VARIABLE`] names and every override.
    ///
    /// # Errors
    /// A variable starts with `RAWCACHED_` and is no setting, or is not UTF-8.
    pub fn from_environment(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Sources, ConfigError> {
        let mut sources = Sources::default();
        for (name, value) in variables {
            let name = name.to_string_lossy().into_owned();
            if !name.starts_with(VARIABLE_PREFIX) || name.starts_with(TEST_VARIABLE_PREFIX) {
                continue;
            }
            if name == FILE_VARIABLE {
                sources.file = Some(value.into());
                continue;
            }
            let key = KEYS
                .iter()
                .find(|key| key.variable() == name)
                .ok_or_else(|| unknown_variable(&name))?;
            let origin = Origin::Variable(name);
            let text = value.into_string().map_err(|_| ConfigError::Setting {
                origin: origin.clone(),
                key: key.path(),
                reason: "the value is not UTF-8".to_owned(),
            })?;
            sources.overrides.push(Override { key, text, origin });
        }
        Ok(sources)
    }

    /// Names the configuration file; outranks the environment.
    pub fn set_file(&mut self, path: PathBuf) {
        self.file = Some(path);
    }

    /// Adds a setting from the flag `flag` (with its dashes); the last one outranks all others.
    pub fn set_flag(&mut self, key: &'static Key, text: String, flag: String) {
        self.overrides.push(Override { key, text, origin: Origin::Flag(flag) });
    }

    /// Adds a read-through listener from flags: where to ask, and where to listen. Without a file it
    /// listens at [`EMBEDDED_PROXY_SOCKET`] too; a file may have none of its own.
    pub fn set_proxy(&mut self, upstream: String, listen: Vec<String>) {
        self.proxy = Some(ProxyFlags { upstream, listen });
    }

    /// Reads the file again and merges all sources.
    ///
    /// # Errors
    /// The file cannot be read, or a setting has a value it cannot have.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let file = self.file.as_deref().map(File::read).transpose()?;
        let mut table = match &file {
            Some(file) => file.parse()?.1,
            None => self.embedded_table(),
        };
        for each in &self.overrides {
            let value = each.check()?;
            set(&mut table, each.key, value);
        }
        if let Some(flags) = &self.proxy {
            self.add_proxy(flags, &mut table, file.as_ref())?;
        }
        let mut config: Config = table.try_into().map_err(|error: toml::de::Error| {
            ConfigError::Syntax { origin: Origin::Default, reason: error.message().to_owned() }
        })?;
        config.embedded = self.is_embedded();
        check(&config).map_err(|broken| self.refuse(broken, file.as_ref()))?;
        Ok(config)
    }

    /// What is wrong where [`Sources::load`] gives an error: as many mistakes as can be told apart from what
    /// follows from them, `first`, that error, among them.
    #[must_use]
    pub fn mistakes(&self, first: ConfigError) -> Vec<ConfigError> {
        match self.find_mistakes() {
            Ok(found) if found.len() > 1 => found,
            // It has the better place: that of an element of a list.
            _ => vec![first],
        }
    }

    fn find_mistakes(&self) -> Result<Vec<ConfigError>, ConfigError> {
        let file = self.file.as_deref().map(File::read).transpose()?;
        let mut table = match &file {
            Some(file) => file.table()?,
            None => self.embedded_table(),
        };
        let mut found = Vec::new();
        for (key, reason) in wrong_alone(&table) {
            let origin = file.as_ref().and_then(|file| file.locate(&key));
            take_out(&mut table, &key);
            found.push(ConfigError::Setting {
                origin: origin.unwrap_or(Origin::Default),
                key,
                reason,
            });
        }
        for each in &self.overrides {
            match each.check() {
                Ok(value) => set(&mut table, each.key, value),
                Err(error) => found.push(error),
            }
        }
        if let Some(flags) = &self.proxy {
            self.add_proxy(flags, &mut table, file.as_ref())?;
        }
        while found.len() < MISTAKES_MAX {
            let Ok(config) = table.clone().try_into::<Config>() else { break };
            let Err(broken) = check(&config) else { break };
            // What is missing since it was taken out is no mistake of its own.
            let section = broken.key.split(['.', '[']).next();
            let is_told = |key: Option<&str>| key == Some(&*broken.key) || key == section;
            if found.iter().any(|error| is_told(error.key())) {
                match give_up(&mut table, &broken.key) {
                    true => continue,
                    false => break,
                }
            }
            take_out(&mut table, &broken.key);
            found.push(self.refuse(broken, file.as_ref()));
        }
        // As they stand in the file, and then those of variables and flags.
        found.sort_by_key(|error| error.line().unwrap_or(usize::MAX));
        Ok(found)
    }

    /// Divides the memory that is available as `config`, which these sources gave, says.
    ///
    /// # Errors
    /// The parts that are set do not fit.
    pub fn plan_memory(
        &self,
        config: &Config,
        available: Available,
    ) -> Result<MemoryPlan, ConfigError> {
        let file = self.file.as_deref().map(File::read).transpose()?;
        MemoryPlan::of(config, available).map_err(|broken| self.refuse(broken, file.as_ref()))
    }

    /// The settings of `config`, which these sources gave, as a configuration file that means the same; each
    /// that is not left at its default with where it comes from.
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub fn show(&self, config: &Config) -> Result<String, ConfigError> {
        let file = self.file.as_deref().map(File::read).transpose()?;
        Ok(shown(config, |key| match self.blame(key, file.as_ref()) {
            // What is not written there is the default; a table is not what is in it.
            Origin::File { .. } => file.as_ref().and_then(|file| file.locate(key)),
            Origin::Default => None,
            // The flags of a proxy give two of its settings.
            Origin::Flag(_) if key.starts_with("proxy") && !ProxyFlags::gives(key) => None,
            origin => Some(origin),
        }))
    }

    fn refuse(&self, broken: Broken, file: Option<&File>) -> ConfigError {
        ConfigError::Setting {
            origin: self.blame(&broken.key, file),
            key: broken.key.into_owned(),
            reason: broken.reason,
        }
    }

    fn add_proxy(
        &self,
        flags: &ProxyFlags,
        table: &mut toml::Table,
        file: Option<&File>,
    ) -> Result<(), ConfigError> {
        if let Some(origin) = file.and_then(|file| file.locate("proxy")) {
            return Err(flags.refuse_beside(&origin));
        }
        let usual = self.file.is_none().then(|| format!("unix:{EMBEDDED_PROXY_SOCKET}"));
        let proxy = toml::Value::Table(flags.table(usual)?);
        table.insert("proxy".to_owned(), vec![proxy].into());
        Ok(())
    }

    fn overrides_key(&self, path: &str) -> bool {
        self.overrides.iter().any(|each| each.key.path() == path)
    }

    fn is_embedded(&self) -> bool {
        self.file.is_none() && !self.overrides_key("device.path")
    }

    fn embedded_table(&self) -> toml::Table {
        let mut table: toml::Table = toml::from_str(EMBEDDED).unwrap_or_default();
        if !self.is_embedded() {
            // The size belongs to the embedded image, not to a device that was named.
            table.remove("device");
        }
        table
    }

    fn blame(&self, key: &str, file: Option<&File>) -> Origin {
        if let Some(flags) = &self.proxy
            && key.starts_with("proxy")
        {
            return flags.origin(key);
        }
        let by_override = self.overrides.iter().rfind(|each| each.key.path() == key);
        match (by_override, file) {
            (Some(each), _) => each.origin.clone(),
            (None, Some(file)) => {
                // What is missing is blamed on its table.
                let table = || key.rsplit_once('.').and_then(|(table, _)| file.locate(table));
                let missing =
                    || Origin::File { path: self.file.clone().unwrap_or_default(), line: 1 };
                file.locate(key).or_else(table).unwrap_or_else(missing)
            }
            (None, None) => Origin::Default,
        }
    }
}

impl Override {
    /// The value in TOML, checked alone so that an error is certainly its own.
    fn check(&self) -> Result<toml::Value, ConfigError> {
        let refuse = |reason| ConfigError::Setting {
            origin: self.origin.clone(),
            key: self.key.path(),
            reason,
        };
        let value = self.key.value(&self.text).map_err(refuse)?;
        let mut alone = toml::Table::new();
        set(&mut alone, self.key, value.clone());
        match alone.try_into::<Config>() {
            Ok(_) => Ok(value),
            Err(error) => {
                let reason = error.message().replace('\n', ", ");
                Err(refuse(plainly(&reason, Some(&self.key.path()))))
            }
        }
    }
}

/// Puts a value into its section; `device` means the first `[[device]]`.
fn set(table: &mut toml::Table, key: &Key, value: toml::Value) {
    let empty = || toml::Value::Table(toml::Table::new());
    let section = if key.section == "device" {
        let devices = table.entry("device").or_insert_with(|| toml::Value::Array(Vec::new()));
        let toml::Value::Array(devices) = devices else { return };
        if devices.is_empty() {
            devices.push(empty());
        }
        &mut devices[0]
    } else {
        table.entry(key.section).or_insert_with(empty)
    };
    if let toml::Value::Table(section) = section {
        section.insert(key.name.to_owned(), value);
    }
}

fn unknown_variable(name: &str) -> ConfigError {
    let tail = name.rsplit('_').next().unwrap_or_default();
    let near = KEYS.iter().map(Key::variable).find(|known| known.ends_with(tail));
    let hint = near.map(|known| format!("; did you mean {known}?")).unwrap_or_default();
    ConfigError::UnknownVariable { name: name.to_owned(), hint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AutoSize;
    use crate::units::ByteSize;

    fn variables(pairs: &[(&str, &str)]) -> Result<Sources, ConfigError> {
        Sources::from_environment(pairs.iter().map(|(k, v)| (k.into(), v.into())))
    }

    fn key(path: &str) -> &'static Key {
        KEYS.iter().find(|key| key.path() == path).unwrap()
    }

    #[test]
    fn nothing_configured_is_the_embedded_default() {
        let config = Sources::default().load().unwrap();
        assert!(config.embedded);
        assert_eq!(config.device().path, PathBuf::from("rawcached-data/cache.img"));
        assert_eq!(config.device().size, Some(ByteSize(1 << 30)));
    }

    #[test]
    fn a_device_in_the_environment_is_not_an_embedded_image() {
        let config = variables(&[("RAWCACHED_DEVICE_PATH", "/dev/x")]).unwrap().load().unwrap();
        assert!(!config.embedded);
        assert_eq!(config.device().size, None);
    }

    #[test]
    fn flags_outrank_the_environment_which_outranks_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.toml");
        std::fs::write(&path, "[ram]\nsize = \"1MiB\"\n[[device]]\npath = \"/dev/x\"\n").unwrap();
        let mut sources = variables(&[("RAWCACHED_RAM_SIZE", "2MiB")]).unwrap();
        sources.set_file(path);
        assert_eq!(sources.load().unwrap().ram.size, AutoSize::Fixed(ByteSize(2 << 20)));
        sources.set_flag(key("ram.size"), "3MiB".into(), "--ram-size".into());
        assert_eq!(sources.load().unwrap().ram.size, AutoSize::Fixed(ByteSize(3 << 20)));
    }

    #[test]
    fn every_key_can_be_overridden() {
        let defaults = Sources::default().load().unwrap();
        for (key, text) in defaults.entries() {
            let sources = variables(&[(&key.variable(), &text)]).unwrap();
            assert!(sources.load().is_ok(), "{} = {text:?}", key.variable());
        }
    }

    #[test]
    fn a_bad_override_is_blamed_on_itself() {
        let message =
            |name, value| variables(&[(name, value)]).unwrap().load().unwrap_err().to_string();
        assert_eq!(
            message("RAWCACHED_SERVER_WORKERS", "many"),
            "environment variable RAWCACHED_SERVER_WORKERS: server.workers: \"many\" is not a whole number"
        );
        let text = message("RAWCACHED_TTL_MAX", "1s");
        assert!(text.contains("ttl.default"), "{text}");
        let mut sources = Sources::default();
        sources.set_flag(key("log.level"), "loud".into(), "--log-level".into());
        let text = sources.load().unwrap_err().to_string();
        assert!(text.starts_with("flag --log-level: log.level: \"loud\""), "{text}");
    }

    fn with_proxy(upstream: &str, listen: &[&str], file: Option<&str>) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.toml");
        let mut sources = Sources::default();
        sources.set_proxy(upstream.into(), listen.iter().map(|&text| text.to_owned()).collect());
        if let Some(text) = file {
            std::fs::write(&path, format!("{text}[[device]]\npath = \"/dev/x\"\n")).unwrap();
            sources.set_file(path);
        }
        sources.load().map_err(|error| error.to_string())
    }

    #[test]
    fn an_upstream_is_enough_for_a_proxy_and_a_file_needs_a_place_to_listen_too() {
        let upstream = "http://127.0.0.1:8080";
        let listed = |config: Config| {
            let entries = config.proxy_entries();
            (entries[1].1.clone(), entries[2].1.clone(), config.embedded)
        };
        let socket = "unix:rawcached-data/proxy.sock";
        let found = |listen: &str, embedded| (listen.to_owned(), upstream.to_owned(), embedded);
        assert_eq!(with_proxy(upstream, &[], None).map(listed), Ok(found(socket, true)));
        let port = ["tcp:127.0.0.1:8081"];
        let both = format!("{socket},{}", port[0]);
        assert_eq!(with_proxy(upstream, &port, None).map(listed), Ok(found(&both, true)));
        assert_eq!(with_proxy(upstream, &port, Some("")).map(listed), Ok(found(port[0], false)));
    }

    #[test]
    fn mistakes_in_the_flags_of_a_proxy_are_blamed_on_the_flag() {
        let file = "[[proxy]]\nlisten = [\"unix:/p\"]\nupstream = \"unix:/u\"\n";
        for (upstream, listen, file, expected) in [
            ("https://x", &[][..], None, "flag --upstream: proxy.upstream: \"https://x\""),
            ("unix:/u", &["x"], None, "flag --listen: proxy.listen: \"x\" is not an address"),
            ("unix:/u", &[], Some(""), "flag --upstream: proxy.listen: with a configuration file"),
            ("unix:/u", &["unix:/q"], Some(file), "flag --upstream: proxy: "),
            (
                "unix:/u",
                &["unix:/u"],
                None,
                "flag --upstream: proxy.upstream: unix:/u is a listener",
            ),
            ("unix:/u", &["unix:/q", "unix:/q"], None, "flag --listen: proxy.listen: unix:/q is"),
        ] {
            let message = with_proxy(upstream, listen, file).unwrap_err();
            assert!(message.starts_with(expected), "{expected}: {message}");
        }
        let message = with_proxy("unix:/u", &["unix:/q"], Some(file)).unwrap_err();
        assert!(message.contains("c.toml:1 has [[proxy]] tables"), "{message}");
    }

    #[test]
    fn what_a_table_lacks_is_blamed_on_the_table() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.toml");
        let text = "[[proxy]]\nlisten = [\"unix:/p\"]\nupstream = \"unix:/u\"\n\
                    [[device]]\npath = \"/dev/x\"\n[[proxy]]\nlisten = [\"unix:/q\"]\n";
        std::fs::write(&path, text).unwrap();
        let mut sources = Sources::default();
        sources.set_file(path);
        let message = sources.load().unwrap_err().to_string();
        assert!(message.contains("c.toml:6: proxy[1].upstream: missing"), "{message}");
    }

    #[test]
    fn unknown_variables_are_refused_except_those_of_tests() {
        let error = variables(&[("RAWCACHED_RAM_SISE", "1")]).unwrap_err();
        assert!(matches!(error, ConfigError::UnknownVariable { .. }));
        let error = variables(&[("RAWCACHED_ADMIN", "x")]).unwrap_err().to_string();
        assert!(error.contains("did you mean RAWCACHED_SERVER_ADMIN?"), "{error}");
        assert!(variables(&[("RAWCACHED_TEST_REQUIRE", "all"), ("HOME", "/x")]).is_ok());
    }
}
