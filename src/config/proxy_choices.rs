//! Settings of `[[proxy]]` with a fixed set of words. Owns their spelling.

use std::fmt;
use std::str::FromStr;

use super::choice::ParseChoiceError;

/// What to do with responses that set cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetCookie {
    /// Do not store them.
    Never,
    /// Store them without the cookies.
    Strip,
    /// Store them as they are.
    Store,
}

impl FromStr for SetCookie {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "never" => Ok(SetCookie::Never),
            "strip" => Ok(SetCookie::Strip),
            "store" => Ok(SetCookie::Store),
            other => Err(unknown(other, "never, strip, store")),
        }
    }
}

impl fmt::Display for SetCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SetCookie::Never => "never",
            SetCookie::Strip => "strip",
            SetCookie::Store => "store",
        })
    }
}

/// Whether `Cache-Control` and `Pragma` of requests have an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientDirectives {
    /// They have none.
    Ignore,
    /// They do what they say.
    Honor,
}

impl FromStr for ClientDirectives {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ignore" => Ok(ClientDirectives::Ignore),
            "honor" => Ok(ClientDirectives::Honor),
            other => Err(unknown(other, "ignore, honor")),
        }
    }
}

impl fmt::Display for ClientDirectives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClientDirectives::Ignore => "ignore",
            ClientDirectives::Honor => "honor",
        })
    }
}

/// A field of responses that can be taken as not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoredField {
    /// `Cache-Control`, with `CDN-Cache-Control` and `Pragma`.
    CacheControl,
    /// `Expires`.
    Expires,
    /// `Vary`.
    Vary,
}

impl FromStr for IgnoredField {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "cache-control" => Ok(IgnoredField::CacheControl),
            "expires" => Ok(IgnoredField::Expires),
            "vary" => Ok(IgnoredField::Vary),
            other => Err(unknown(other, "cache-control, expires, vary")),
        }
    }
}

impl fmt::Display for IgnoredField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IgnoredField::CacheControl => "cache-control",
            IgnoredField::Expires => "expires",
            IgnoredField::Vary => "vary",
        })
    }
}

/// What to do with requests that change the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// Answer them with 501.
    Refuse,
    /// Pass WebSocket on.
    Tunnel,
}

impl FromStr for Upgrade {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "refuse" => Ok(Upgrade::Refuse),
            "tunnel" => Ok(Upgrade::Tunnel),
            other => Err(unknown(other, "refuse, tunnel")),
        }
    }
}

impl fmt::Display for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Upgrade::Refuse => "refuse",
            Upgrade::Tunnel => "tunnel",
        })
    }
}

fn unknown(found: &str, expected: &'static str) -> ParseChoiceError {
    ParseChoiceError::Unknown { found: found.to_owned(), expected }
}
