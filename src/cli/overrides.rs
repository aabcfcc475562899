//! Flags of `serve` that override settings. Owns nothing: the flags follow from the list of keys.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use crate::config::{Config, KEYS, Key, Sources};

/// One flag for each setting: `--server-admin`, `--ram-size`, and so on.
#[derive(Debug, Default)]
pub struct Overrides(Vec<(&'static Key, String)>);

impl Overrides {
    /// Adds every flag that was given.
    pub fn add_to(self, sources: &mut Sources) {
        for (key, text) in self.0 {
            sources.set_flag(key, text, format!("--{}", key.flag()));
        }
    }

    fn update(&mut self, matches: &ArgMatches) {
        for key in &KEYS {
            if let Some(text) = matches.get_one::<String>(&key.flag()) {
                self.0.push((key, text.clone()));
            }
        }
    }
}

/// The default of a setting, and the other one that it has without a configuration file; the image is for
/// those who name no device either.
fn shown_default(key: &Key, default: &str, embedded: &str) -> String {
    let usual = (!default.is_empty()).then(|| format!("default: {default}"));
    let without = match key.section {
        "device" => "without a configuration file and a device",
        _ => "without a configuration file",
    };
    let other = (embedded != default).then(|| format!("{without}: {embedded}"));
    let parts: Vec<String> = usual.into_iter().chain(other).collect();
    if parts.is_empty() { String::new() } else { format!(" [{}]", parts.join("; ")) }
}

impl FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut overrides = Overrides::default();
        overrides.update(matches);
        Ok(overrides)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.update(matches);
        Ok(())
    }
}

impl Args for Overrides {
    fn augment_args(command: Command) -> Command {
        let embedded = Sources::default().load().unwrap_or_default();
        let defaults = Config::default().entries().into_iter().zip(embedded.entries());
        defaults.fold(command, |command, ((key, default), (_, embedded))| {
            let help = format!("{}{}", key.help, shown_default(key, &default, &embedded));
            command.arg(
                Arg::new(key.flag())
                    .long(key.flag())
                    .value_name(key.name.to_ascii_uppercase())
                    .help(help)
                    .help_heading("Settings (over RAWCACHED_SECTION_KEY, over the file)"),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
