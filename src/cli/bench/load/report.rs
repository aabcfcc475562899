//! What `rawcached bench load` prints. Owns the layout of table and JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::figures::{FIGURES, Figures};

/// Everything that was measured.
#[derive(Serialize)]
pub(super) struct Report {
    /// Which figures are missing, and how to get them.
    pub(super) notes: Vec<String>,
    pub(super) sections: Vec<Section>,
}

/// One kind of load on every server.
#[derive(Serialize)]
pub(super) struct Section {
    name: &'static str,
    servers: Vec<Rounds>,
    /// The first server's figures over the second's: the median of the rounds' ratios.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<Figures>,
}

#[derive(Serialize)]
struct Rounds {
    address: String,
    /// The median of each figure on its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    median: Option<Figures>,
    rounds: Vec<Figures>,
}

impl Section {
    pub(super) fn new(name: &'static str, addresses: impl Iterator<Item = String>) -> Section {
        let rounds = |address| Rounds { address, median: None, rounds: Vec::new() };
        Section { name, servers: addresses.map(rounds).collect(), ratio: None }
    }

    /// Adds a round on server number `at`.
    pub(super) fn add(&mut self, at: usize, figures: Figures) {
        let server = &mut self.servers[at];
        server.rounds.push(figures);
        server.median = Some(Figures::median(&server.rounds));
        if let [first, second] = &self.servers[..] {
            let pairs = first.rounds.iter().zip(&second.rounds);
            let ratios: Vec<_> = pairs.map(|(first, second)| first.over(second)).collect();
            self.ratio = (!ratios.is_empty()).then(|| Figures::median(&ratios));
        }
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        write!(text, "{:<26}", self.name)?;
        for server in &self.servers {
            write!(text, " {:>24}", server.address)?;
        }
        writeln!(text, "{}", if self.ratio.is_some() { "    ratio" } else { "" })?;
        for (place, (_, label, digits, _)) in FIGURES.iter().enumerate() {
            let value =
                |server: &Rounds| server.median.as_ref().and_then(|median| median.at(place));
            if self.servers.iter().all(|server| value(server).is_none()) {
                continue;
            }
            write!(text, "{label:<26}")?;
            for server in &self.servers {
                match value(server) {
                    Some(value) => write!(text, " {value:>24.digits$}")?,
                    None => write!(text, " {:>24}", "-")?,
                }
            }
            match self.ratio.as_ref().and_then(|ratio| ratio.at(place)) {
                Some(ratio) => writeln!(text, " {ratio:>8.3}")?,
                None => writeln!(text)?,
            }
        }
        Ok(())
    }
}

impl Report {
    pub(super) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for section in &self.sections {
            if !text.is_empty() {
                text.push('\n');
            }
            // Writing to a string cannot fail.
            let _ = section.write(&mut text);
        }
        for note in &self.notes {
            let _ = writeln!(text, "\n{note}");
        }
        text
    }
}
