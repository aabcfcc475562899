//! What `Cache-Status` says (RFC 9211), read strictly.

/// The member that the cache next to the client added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub hit: bool,
    pub forwarded: Option<String>,
    pub forwarded_status: Option<u16>,
    pub ttl: Option<i64>,
    pub stored: bool,
    pub collapsed: bool,
    pub detail: Option<String>,
}

impl Verdict {
    /// The last member of all `lines`, which has to be rawcached's.
    #[track_caller]
    pub fn of(lines: &[&str]) -> Verdict {
        let line = lines.last().expect("no Cache-Status");
        let member = split(line, ',').pop().unwrap();
        let mut parts = split(&member, ';').into_iter();
        assert_eq!(parts.next().as_deref(), Some("rawcached"), "{line}");
        let mut verdict = Verdict::default();
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((&part, ""));
            match (name, value) {
                ("hit", "") => verdict.hit = true,
                ("stored", "") => verdict.stored = true,
                ("collapsed", "") => verdict.collapsed = true,
                ("fwd", why) => verdict.forwarded = Some(why.to_owned()),
                ("fwd-status", status) => verdict.forwarded_status = Some(status.parse().unwrap()),
                ("ttl", secs) => verdict.ttl = Some(secs.parse().unwrap()),
                ("detail", text) => {
                    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                    let text = text.unwrap_or_else(|| panic!("{line}"));
                    verdict.detail = Some(text.replace("\\\"", "\"").replace("\\\\", "\\"));
                }
                _ => panic!("{part} in {line}"),
            }
        }
        assert!(!verdict.hit || verdict.forwarded.is_none(), "{line}");
        verdict
    }
}

/// What stands between separators, but for those in strings.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut is_quoted, mut is_escaped) = (false, false);
    for c in text.chars() {
        match c {
            '"' if !is_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        is_escaped = is_quoted && c == '\\' && !is_escaped;
        match parts.last_mut() {
            Some(part) if c != separator || is_quoted => part.push(c),
            _ => parts.push(String::new()),
        }
    }
    assert!(!is_quoted, "{text}");
    parts.iter().map(|part| part.trim_matches(' ').to_owned()).collect()
}
