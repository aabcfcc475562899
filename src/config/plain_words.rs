//! What the parser of TOML complains about, in plain words: what stands there, what belongs there, and what
//! to write. Pure.

/// `reason`, as the parser gives it, in words for whoever wrote the file. `key` is the setting, if it is
/// known. What is in plain words already stays.
pub fn plainly(reason: &str, key: Option<&str>) -> String {
    if reason.contains("leading zero") {
        return "a number does not begin with 0: write a mode in quotes, such as \"0660\""
            .to_owned();
    }
    let complaint = ["invalid type: ", "invalid value: "];
    let complaint = complaint.iter().find_map(|begin| reason.strip_prefix(begin));
    let Some((found, expected)) = complaint.and_then(|it| it.split_once(", expected ")) else {
        return reason.to_owned();
    };
    let (wanted, advice) = wanted(found, expected, key.unwrap_or_default());
    format!("{} stands where {wanted} belongs: {advice}", named(found))
}

/// What stands there.
fn named(found: &str) -> String {
    let quoted = |kind: &str| found.strip_prefix(kind)?.strip_prefix(" `")?.strip_suffix('`');
    if let Some(number) = quoted("integer").or(quoted("floating point")) {
        return format!("the number {number}");
    }
    match (found, quoted("boolean"), found.strip_prefix("string ")) {
        ("map", ..) => "a table".to_owned(),
        ("sequence", ..) => "a list".to_owned(),
        (_, Some(word), _) => format!("the word {word}"),
        (_, _, Some(text)) => format!("the text {text}"),
        _ => found.to_owned(),
    }
}

/// What belongs there, and what to write.
fn wanted<'a>(found: &str, expected: &'a str, key: &str) -> (&'a str, String) {
    let integer = found.strip_prefix("integer `").and_then(|rest| rest.strip_suffix('`'));
    let is_number = expected.len() > 1
        && expected.starts_with(['u', 'i'])
        && expected[1..].bytes().all(|byte| byte.is_ascii_digit());
    match (expected, found.strip_prefix("string "), integer) {
        // A table of the file, not one within a section.
        ("a sequence", ..) if found == "map" && !key.contains('.') => {
            ("a list of tables", format!("write [[{key}]], in two brackets"))
        }
        ("a sequence", ..) if found == "map" => ("a list", "write it within [ and ]".to_owned()),
        ("a sequence", Some(text), _) => ("a list", format!("write [{text}]")),
        ("a sequence", ..) => ("a list", "write it within [ and ]".to_owned()),
        ("a string" | "path string", ..) if key.ends_with("_mode") => {
            ("text", "write the octal digits in quotes, such as \"0660\"".to_owned())
        }
        ("a string" | "path string", _, Some(number)) => ("text", format!("write \"{number}\"")),
        ("a string" | "path string", ..) => ("text", "write it in quotes".to_owned()),
        ("a boolean", ..) => ("true or false", "write one of them, without quotes".to_owned()),
        ("a map", ..) => ("a table", "write one, such as { 404 = \"10s\" }".to_owned()),
        ("u16", _, Some(_)) => ("one from 0 to 65535", "write such a number".to_owned()),
        ("u32", _, Some(_)) => ("one from 0 to 4294967295", "write such a number".to_owned()),
        _ if is_number => ("a whole number", "write its digits, without quotes".to_owned()),
        _ => (expected, "write that".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_say_what_stands_there_what_belongs_there_and_what_to_write() {
        for (reason, key, expected) in [
            (
                "invalid type: map, expected a sequence",
                "device",
                "a table stands where a list of tables belongs: write [[device]], in two brackets",
            ),
            (
                "invalid type: map, expected a sequence",
                "server.http",
                "a table stands where a list belongs: write it within [ and ]",
            ),
            (
                "invalid type: string \"unix:/a\", expected a sequence",
                "server.http",
                "the text \"unix:/a\" stands where a list belongs: write [\"unix:/a\"]",
            ),
            (
                "invalid type: integer `1024`, expected a string",
                "ram.size",
                "the number 1024 stands where text belongs: write \"1024\"",
            ),
            (
                "invalid type: integer `432`, expected a string",
                "server.socket_mode",
                "the number 432 stands where text belongs: write the octal digits in quotes, such as \
                 \"0660\"",
            ),
            (
                "invalid type: boolean `true`, expected path string",
                "device.path",
                "the word true stands where text belongs: write it in quotes",
            ),
            (
                "invalid type: string \"x\", expected u32",
                "server.workers",
                "the text \"x\" stands where a whole number belongs: write its digits, without quotes",
            ),
            (
                "invalid value: integer `-1`, expected u32",
                "server.workers",
                "the number -1 stands where one from 0 to 4294967295 belongs: write such a number",
            ),
            (
                "invalid type: floating point `1.5`, expected an address, or a table with one",
                "server.http",
                "the number 1.5 stands where an address, or a table with one belongs: write that",
            ),
            (
                "invalid type: sequence, expected a map",
                "x.y",
                "a list stands where a table belongs",
            ),
        ] {
            let found = plainly(reason, Some(key));
            assert!(found.starts_with(expected), "{found}");
        }
        assert!(plainly("unexpected leading zero", None).contains("\"0660\""));
        assert_eq!(plainly("\"x\" is not a size", Some("ram.size")), "\"x\" is not a size");
    }
}
