//! Goal: dashboard and rules ask for nothing that is not there. Method: find the names of metrics and the
//! matchers of their labels in the files, and look them up on the page of a running daemon.
//!
//! What the rules say for which values is tested by `promtool`, with `tests/prometheus_rules.yml`.

use std::collections::{BTreeMap, BTreeSet};

use super::daemon_scrape;

const DASHBOARD: &str = include_str!("../../../config/grafana-dashboard.json");
const RULES: &str = include_str!("../../../config/prometheus.rules.yml");
const RULES_TEST: &str = include_str!("../../prometheus_rules.yml");

/// Labels that Prometheus adds.
const OF_PROMETHEUS: &[&str] = &["instance", "job", "le"];

/// What is asked for: a name, and what stands behind it in braces.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Selector {
    name: String,
    matchers: String,
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// All names of metrics with the matchers behind them.
fn selectors(text: &str) -> BTreeSet<Selector> {
    let mut found = BTreeSet::new();
    let mut rest = text;
    while let Some(at) = rest.find("rawcached_") {
        let begin = rest[..at].rfind(|c| !is_of_name(c)).map_or(0, |before| before + 1);
        let name: String = rest[begin..].chars().take_while(|c| is_of_name(*c)).collect();
        rest = &rest[begin + name.len()..];
        let braces = rest.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let matchers = braces.map(|(inside, _)| inside.to_owned()).unwrap_or_default();
        found.insert(Selector { name, matchers });
    }
    found
}

/// Label, operator and value of each matcher; those of Prometheus are left out.
fn matchers(text: &str) -> Vec<(&str, &str, &str)> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    let split = parts.map(|part| {
        let at = part.find(['=', '!']).unwrap_or_else(|| panic!("a matcher: {part}"));
        let (label, rest) = part.split_at(at);
        let (operator, value) = rest.split_at(rest.find('"').unwrap());
        (label, operator, value.trim_matches('"'))
    });
    split.filter(|(label, ..)| !OF_PROMETHEUS.contains(label)).collect()
}

/// The values of each label of each metric on a page.
fn exported(page: &str) -> BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> {
    let mut names: BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let values = names.entry(name).or_default();
        // A comma may stand within a value.
        let pairs = labels.trim_end_matches("\"}").split("\",").filter(|pair| !pair.is_empty());
        for (label, value) in pairs.filter_map(|pair| pair.split_once("=\"")) {
            values.entry(label).or_default().insert(value);
        }
    }
    names
}

/// Words behind a key of the rules.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.trim().strip_prefix(key)).map(str::trim)
}

/// The expressions of the dashboard, those of its variables too.
fn expressions() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let found = targets.map(|target| &target["expr"]);
    let found = found.chain(variables.iter().map(|variable| &variable["definition"]));
    found.filter_map(|text| text.as_str()).map(str::to_owned).collect()
}

#[test]
fn dashboard_and_rules_name_metrics_and_labels_that_are_exported() {
    let answer = daemon_scrape();
    let (_, page) = answer.split_once("\r\n\r\n").unwrap();
    let exported = exported(page);
    let recorded: BTreeSet<&str> = values(RULES, "- record:").collect();
    let asked = [expressions().join("\n"), RULES.to_owned(), RULES_TEST.to_owned()];
    for (text, at_least) in asked.iter().zip([60, 40, 30]) {
        let selectors = selectors(text);
        assert!(selectors.len() >= at_least, "names are found: {selectors:#?}");
        for Selector { name, matchers: of_labels } in selectors {
            if name.contains(':') {
                assert!(recorded.contains(name.as_str()), "no rule records {name}");
                continue;
            }
            let labels = exported.get(name.as_str()).unwrap_or_else(|| panic!("no metric {name}"));
            for (label, operator, value) in matchers(&of_labels) {
                let known = labels.get(label).unwrap_or_else(|| panic!("{name} has no {label}"));
                // Which listeners there are is up to the configuration.
                for value in value.split('|').filter(|_| label != "listener") {
                    assert!(known.contains(value), "{name}{{{label}{operator}{value}}}: {known:?}");
                }
            }
        }
    }
}

#[test]
fn the_dashboard_asks_the_chosen_source_for_the_chosen_instances() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().any(|it| it["type"] == "datasource" && it["name"] == "datasource"));
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id twice: {panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
            let expression = target["expr"].as_str().unwrap();
            let selectors = expression.matches("rawcached_").count();
            let chosen = expression.matches("instance=~\"$instance\"").count();
            assert_eq!(selectors, chosen, "{expression}");
        }
    }
}

#[test]
fn every_alert_and_every_recorded_ratio_is_tested() {
    let alerts: Vec<&str> = values(RULES, "- alert:").collect();
    assert!(alerts.len() > 15, "alerts are found: {alerts:?}");
    for alert in alerts {
        assert!(RULES_TEST.contains(&format!("alertname=\"{alert}\"")), "{alert}");
    }
    for name in values(RULES, "- record:") {
        assert!(RULES_TEST.contains(&format!("({name}")), "{name}");
    }
}
