//! Settings that describe themselves: the documentation of each key beside its default.
//! Invariant: the reference is made from the types alone, so it cannot name a key that does not exist.
//! Leaves where the reference is stored to its readers.

use std::{fmt::Write, net::IpAddr, path::PathBuf};

use serde::Serialize;
use serde_yaml::Value;

/// One key of a type of settings.
#[derive(Debug)]
pub struct Field {
    /// Its name in the file.
    pub name: &'static str,
    /// Its documentation, line by line.
    pub doc: &'static [&'static str],
    /// The keys within, when it is a section.
    pub fields: &'static [Field],
}

/// A type that a setting may have. Sections list their keys; for anything else the default will do.
pub trait Setting {
    /// The keys of a section, in the order of the file.
    const FIELDS: &'static [Field] = &[];
}

macro_rules! plain {
    ($($type:ty,)*) => { $(impl Setting for $type {})* };
}

plain! {
    bool, u16, u32, u64, i32, i64, f64, String, IpAddr, PathBuf, super::Bytes, super::Duration,
}
impl<T> Setting for Vec<T> {}
impl<T> Setting for Option<T> {}

/// Declares a type of settings: each key with its documentation, type and default.
macro_rules! settings {
    (
        $(#[doc = $type_doc:literal])*
        $vis:vis struct $name:ident {
            $($(#[doc = $doc:literal])* $field_vis:vis $field:ident: $type:ty = $default:expr,)*
        }
    ) => {
        $(#[doc = $type_doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        $vis struct $name {
            $($(#[doc = $doc])* $field_vis $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::settings::Setting for $name {
            const FIELDS: &'static [$crate::settings::Field] = &[
                $($crate::settings::Field {
                    name: stringify!($field),
                    doc: &[$($doc,)*],
                    fields: <$type as $crate::settings::Setting>::FIELDS,
                },)*
            ];
        }
    };
}
pub(crate) use settings;

/// The defaults of `T` as YAML, each key under its documentation.
pub fn reference<T: Setting + Serialize + Default>() -> Result<String, serde_yaml::Error> {
    let mut out = String::new();
    write_section(&mut out, T::FIELDS, &serde_yaml::to_value(T::default())?, 0)?;
    Ok(out)
}

fn write_section(
    out: &mut String,
    fields: &[Field],
    section: &Value,
    depth: usize,
) -> Result<(), serde_yaml::Error> {
    let indent = "  ".repeat(depth);
    for field in fields {
        for line in field.doc {
            let _ = writeln!(out, "{indent}#{line}");
        }
        let value = &section[field.name];
        if field.fields.is_empty() {
            let text =
                serde_yaml::to_string(&[(field.name, value)].into_iter().collect::<Pairs>())?;
            for line in text.lines() {
                let _ = writeln!(out, "{indent}{line}");
            }
        } else {
            let _ = writeln!(out, "{indent}{}:", field.name);
            write_section(out, field.fields, value, depth + 1)?;
        }
    }
    Ok(())
}

type Pairs<'a> = std::collections::BTreeMap<&'a str, &'a Value>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Duration;

    settings! {
        /// Inner.
        struct Inner {
            /// How long. Default 5s.
            wait: Duration = Duration::from_secs(5),
            /// Which ones.
            names: Vec<String> = vec!["a".into()],
        }
    }

    settings! {
        /// Outer.
        struct Outer {
            /// A section.
            inner: Inner = Inner::default(),
            /// A number.
            /// Over two lines.
            port: u16 = 1,
        }
    }

    #[test]
    fn reference_shows_each_key_with_its_words_and_reads_back_as_the_defaults() {
        let text = reference::<Outer>().unwrap();
        let expected = "# A section.\ninner:\n  # How long. Default 5s.\n  wait: 5s\n  # Which ones.\n  \
                        names:\n  - a\n# A number.\n# Over two lines.\nport: 1\n";
        assert_eq!(text, expected);
        assert_eq!(serde_yaml::from_str::<Outer>(&text).unwrap(), Outer::default());
    }
}
