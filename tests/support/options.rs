//! Options with some fields set. Owns nothing but a way to write them: the library's options take no
//! literals from other crates.

/// As a literal would be: `options!(CacheOptions { ram_bytes: 0, ..plain() })`.
macro_rules! options {
    ($type:ty { $($field:ident $(: $value:expr)?,)+ ..$base:expr }) => {{
        let mut options: $type = $base;
        $(options.$field = options!(@value $field $(: $value)?);)+
        options
    }};
    (@value $field:ident) => { $field };
    (@value $field:ident : $value:expr) => { $value };
}
