//! Looking for more than the first mistake of a configuration. Owns how a setting is looked at alone, and how
//! it is taken out so that the rest can be looked at. Pure.

use toml::{Table, Value};

use super::plain_words::plainly;
use super::{Config, KEYS, ProxyConfig};

/// Most mistakes that are looked for.
pub const MISTAKES_MAX: usize = 50;

/// Every setting of `table` that does not exist or cannot have its value, whatever the others are: its key,
/// as in `proxy[1].listen`, and why.
pub fn wrong_alone(table: &Table) -> Vec<(String, String)> {
    let looked = settings_of(table).into_iter().filter_map(|(path, alone)| {
        let error = alone.try_into::<Config>().err()?;
        let reason = error.message().trim_end().replace('\n', ", ");
        Some((path.clone(), plainly(&reason, Some(&path))))
    });
    looked.take(MISTAKES_MAX).collect()
}

/// The settings of `table`, each by its key and in a table of its own. A section that is none, or is written
/// as something else, stays whole.
fn settings_of(table: &Table) -> Vec<(String, Table)> {
    let mut found = Vec::new();
    let single = |name: &str, value: Value| Table::from_iter([(name.to_owned(), value)]);
    for (section, value) in table {
        let is_plain = KEYS.iter().any(|key| key.section == section) && section != "device";
        match value {
            Value::Table(settings) if is_plain => {
                for (name, value) in settings {
                    let alone = single(section, single(name, value.clone()).into());
                    found.push((format!("{section}.{name}"), alone));
                }
            }
            Value::Array(tables) if ["device", "proxy"].contains(&section.as_str()) => {
                for (index, settings) in tables.iter().enumerate() {
                    let place = ProxyConfig::table(index).replace("proxy", section);
                    for (name, value) in settings.as_table().into_iter().flatten() {
                        let alone = Value::from(single(name, value.clone()));
                        let alone = single(section, Value::Array(vec![alone]));
                        found.push((format!("{place}.{name}"), alone));
                    }
                }
            }
            whole => found.push((section.clone(), single(section, whole.clone()))),
        }
    }
    found
}

/// Takes the setting or the table `key` out; false if it is not there.
pub fn take_out(table: &mut Table, key: &str) -> bool {
    let (place, name) =
        key.split_once('.').map_or((key, None), |(place, name)| (place, Some(name)));
    let (section, index) = place.split_once('[').unwrap_or((place, "0"));
    let index = index.trim_end_matches(']').parse().unwrap_or(0);
    let (Some(name), Some(value)) = (name, table.get_mut(section)) else {
        return match table.get_mut(section) {
            Some(Value::Array(tables)) if place != section && index < tables.len() => {
                tables.remove(index);
                true
            }
            _ => table.remove(section).is_some(),
        };
    };
    let settings = match value {
        Value::Array(tables) => tables.get_mut(index).and_then(Value::as_table_mut),
        value => value.as_table_mut(),
    };
    settings.is_some_and(|settings| settings.remove(name).is_some())
}

/// Takes out the section of the setting `key`, whose mistake is known: nothing more can be said of it. In the
/// place of the device stands one about which nothing can be said. False if there is nothing to take out.
pub fn give_up(table: &mut Table, key: &str) -> bool {
    let section = key.split(['.', '[']).next().unwrap_or(key);
    if section != "device" {
        return table.remove(section).is_some();
    }
    let stand_in = Table::from_iter([("path".to_owned(), Value::from("/"))]);
    let stand_in = Value::Array(vec![stand_in.into()]);
    let before = table.insert(section.to_owned(), stand_in.clone());
    before != Some(stand_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn each_setting_that_is_wrong_by_itself_is_found() {
        let found = wrong_alone(&table(
            "[ram]\nsize = \"lots\"\nsizes = 1\n[sever]\na = 1\nb = 2\n[log]\nlevel = \"info\"\n\
             [[device]]\npath = 1\n[[proxy]]\nupgrade = \"x\"\n[[proxy]]\nmin_uses = \"x\"\n",
        ));
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        let expected =
            ["device.path", "proxy.upgrade", "proxy[1].min_uses", "ram.size", "ram.sizes", "sever"];
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected, "{found:?}");
        let found = wrong_alone(&table("[device]\npath = \"/x\"\nio = \"auto\""));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(wrong_alone(&table("[server]\nhttp = [\"unix:/a\"]")).is_empty());
    }

    #[test]
    fn what_is_taken_out_is_gone_and_nothing_else() {
        let text = "[ram]\nsize = \"1\"\n[[device]]\npath = \"/a\"\nio = \"auto\"\n\
                    [[device]]\npath = \"/b\"\n";
        let without = |key| {
            let mut table = table(text);
            let is_out = take_out(&mut table, key);
            (is_out, table.to_string())
        };
        assert!(without("ram.size").0 && !without("ram.size").1.contains("size"));
        let (is_out, left) = without("device.path");
        assert!(is_out && !left.contains("/a") && left.contains("/b") && left.contains("auto"));
        let (is_out, left) = without("device[1]");
        assert!(is_out && left.contains("/a") && !left.contains("/b"));
        assert!(without("ram").0 && !without("ram").1.contains("ram"));
        let mut whole = table(text);
        assert!(give_up(&mut whole, "ram.size") && !give_up(&mut whole, "ram.size"));
        assert!(give_up(&mut whole, "device[1].path") && !give_up(&mut whole, "device.path"));
        assert_eq!(whole.to_string().trim(), "[[device]]\npath = \"/\"");
        for key in ["log.level", "ram.none", "device[2].path", "device[1].io", "none"] {
            assert!(!without(key).0, "{key}");
        }
    }
}
