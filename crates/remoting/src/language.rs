//! The language a peer's client is written in, as the header of each frame says.
//!
//! A name or number that is not known becomes `Other`: no client is refused for its language.
//! Answers say `Java`, the one value that every client decodes.

macro_rules! languages {
    ($($variant:ident = $code:literal $name:literal,)*) => {
        /// Language of a client; connection lists show it, and C++ clients get their own body of
        /// the offset reset push.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[allow(missing_docs, reason = "the names are the protocol's own")]
        pub enum Language {
            #[default]
            $($variant,)*
        }

        impl Language {
            /// Name on the wire, in the JSON header and in connection lists.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Number on the wire, in the compact header.
            pub const fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)* }
            }

            /// The language of that name; `Other` for a name that is not known.
            pub fn from_name(name: &str) -> Self {
                match name { $($name => Self::$variant,)* _ => Self::Other }
            }

            /// The language of that number; `Other` for a number that is not known.
            pub const fn from_code(code: i64) -> Self {
                match code { $($code => Self::$variant,)* _ => Self::Other }
            }
        }
    };
}

languages! {
    Java = 0 "JAVA",
    Cpp = 1 "CPP",
    Dotnet = 2 "DOTNET",
    Python = 3 "PYTHON",
    Delphi = 4 "DELPHI",
    Erlang = 5 "ERLANG",
    Ruby = 6 "RUBY",
    Other = 7 "OTHER",
    Http = 8 "HTTP",
    Go = 9 "GO",
    Php = 10 "PHP",
    Oms = 11 "OMS",
    Rust = 12 "RUST",
    NodeJs = 13 "NODE_JS",
}

impl std::fmt::Display for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_survives_both_forms_and_an_unknown_one_is_other() {
        for code in 0..=13 {
            let language = Language::from_code(code);
            assert_eq!(i64::from(language.code()), code);
            assert_eq!(Language::from_name(language.name()), language);
        }
        assert_eq!(Language::from_code(99), Language::Other);
        assert_eq!(Language::from_name("COBOL"), Language::Other);
    }
}
