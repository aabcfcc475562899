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
        Config::default().entries().into_iter().fold(command, |command, (key, default)| {
            let help = if default.is_empty() {
                key.help.to_owned()
            } else {
                format!("{} [default: {default}]", key.help)
            };
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
