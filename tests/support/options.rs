//! Options with some fields set: other crates cannot write the library's options as literals.

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
