//! Header of a frame: one borrowed view for both encodings, read without building a tree.
//!
//! Text is borrowed from the header's bytes; only JSON strings with escapes are copied.
//! A view never outlives its bytes, and an absent number reads as 0, as in RocketMQ's own decoder.
//! What the fields of a command mean is left to `command`.

mod compact;
mod json;

use std::borrow::Cow;

use crate::codes::RequestCode;
use crate::ext::{Ext, Header, HeaderError};
use crate::language::Language;

/// Bit of `flag` that marks a response.
pub const FLAG_RESPONSE: i32 = 1;
/// Bit of `flag` that marks a request that is never answered.
pub const FLAG_ONE_WAY: i32 = 2;

/// How the header of a frame is encoded; an answer uses the encoding of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// A JSON object.
    #[default]
    Json,
    /// The binary form that the protocol calls `ROCKETMQ`.
    Compact,
}

impl Encoding {
    /// The encoding byte of a frame.
    pub const fn code(self) -> u8 {
        match self {
            Self::Json => 0,
            Self::Compact => 1,
        }
    }

    /// The encoding of that byte.
    pub const fn from_code(code: u8) -> Result<Self, ParseError> {
        match code {
            0 => Ok(Self::Json),
            1 => Ok(Self::Compact),
            code => Err(ParseError::UnknownEncoding { code }),
        }
    }
}

/// Why the bytes of a header could not be read; the connection that brought them is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The encoding byte of the frame is neither JSON nor compact.
    #[error("header encoding {code} is not known")]
    UnknownEncoding {
        /// The byte.
        code: u8,
    },
    /// Text is not UTF-8.
    #[error("header is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Offset in the header, in bytes.
        at: usize,
    },
    /// JSON syntax.
    #[error("header byte {at}: expected {expected}")]
    Syntax {
        /// Offset in the header, in bytes.
        at: usize,
        /// What would have been accepted there.
        expected: &'static str,
    },
    /// Values are nested deeper than a header ever needs.
    #[error("header byte {at}: nested deeper than {limit}")]
    TooDeep {
        /// Offset in the header, in bytes.
        at: usize,
        /// Accepted depth.
        limit: usize,
    },
    /// More fields than [`crate::ext::FIELDS_MAX`].
    #[error("header has more than {limit} fields")]
    TooManyFields {
        /// Accepted number.
        limit: usize,
    },
    /// One of the header's own members is no 32-bit integer.
    #[error("header member {member} is {value:?}, expected a 32-bit integer")]
    Number {
        /// Name of the member.
        member: &'static str,
        /// What the peer sent, cut to a length fit for logs.
        value: String,
    },
    /// Bytes follow the end of the header.
    #[error("{bytes} bytes follow the header")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// A length inside a compact header is negative or overruns it.
    #[error("{part} of a compact header announces {length} bytes, {held} are left")]
    Overrun {
        /// Which part.
        part: &'static str,
        /// The announced length.
        length: i64,
        /// Bytes that are left.
        held: usize,
    },
    /// A response came where a request is expected and no call waits for it.
    #[error("response with opaque {opaque} answers no call")]
    UnexpectedResponse {
        /// Correlation id of the response.
        opaque: i32,
    },
}

/// A header, borrowed from the bytes of its frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderView<'a> {
    /// Encoding that the header came in.
    pub encoding: Encoding,
    /// Request code, or response code.
    pub code: i32,
    /// Language of the peer's client.
    pub language: Language,
    /// Protocol version of the peer; the ordinal of a release.
    pub version: i32,
    /// Correlation id chosen by the requester.
    pub opaque: i32,
    /// Bits: [`FLAG_RESPONSE`], [`FLAG_ONE_WAY`].
    pub flag: i32,
    /// Error text or trace remark.
    pub remark: Option<Cow<'a, str>>,
    /// The command's own fields.
    pub ext: Ext<'a>,
}

impl<'a> HeaderView<'a> {
    /// Reads a whole header.
    pub fn parse(encoding: Encoding, bytes: &'a [u8]) -> Result<Self, ParseError> {
        let mut view = Self::default();
        view.read(encoding, bytes)?;
        Ok(view)
    }

    /// [`HeaderView::parse`] in the place of another header, whose memory it uses. After an error nothing in it counts.
    pub fn read(&mut self, encoding: Encoding, bytes: &'a [u8]) -> Result<(), ParseError> {
        self.clear();
        self.encoding = encoding;
        match encoding {
            Encoding::Json => json::read(bytes, self),
            Encoding::Compact => compact::read(bytes, self),
        }
    }

    /// Leaves a header without any member; the parsers fill it.
    fn clear(&mut self) {
        let Self { encoding, code, language, version, opaque, flag, remark, ext } = self;
        *encoding = Encoding::default();
        *language = Language::default();
        (*code, *version, *opaque, *flag) = (0, 0, 0, 0);
        *remark = None;
        ext.clear();
    }

    /// The code of a request.
    pub fn request_code(&self) -> RequestCode {
        RequestCode(self.code)
    }

    /// Whether this is a response.
    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// Whether this request is never answered.
    pub fn is_one_way(&self) -> bool {
        self.flag & FLAG_ONE_WAY != 0
    }

    /// What an answer needs to know of this request.
    pub fn reply_to(&self) -> ReplyTo {
        ReplyTo { opaque: self.opaque, encoding: self.encoding, one_way: self.is_one_way() }
    }

    /// The command's own fields, typed.
    pub fn fields<'e, H: Header<'e>>(&'e self) -> Result<H, HeaderError> {
        H::from_ext(&self.ext)
    }
}

/// What an answer needs to know of its request; small enough to keep while the answer waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTo {
    /// Correlation id of the request.
    pub opaque: i32,
    /// Encoding of the request, and so of the answer.
    pub encoding: Encoding,
    /// Whether the requester wants no answer; writers then write nothing.
    pub one_way: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ext::FIELDS_MAX;

    fn json(text: &str) -> Result<HeaderView<'_>, ParseError> {
        HeaderView::parse(Encoding::Json, text.as_bytes())
    }

    fn pairs<'v>(view: &'v HeaderView<'_>) -> Vec<(&'v str, &'v str)> {
        view.ext.iter().collect()
    }

    #[test]
    fn members_come_in_any_order_with_unknown_ones_and_white_space() {
        let text = " {\"version\" : 317, \"unknown\":[{\"a\":[1,-2.5e+3,null]},true],\n\"opaque\":-5,\"extFields\":{ \"k\" : \"v\" } ,\"code\":11,\"language\":\"GO\",\"flag\":2} ";
        let view = json(text).unwrap();
        assert_eq!((view.code, view.version, view.opaque, view.flag), (11, 317, -5, 2));
        assert_eq!(
            (view.language, view.is_one_way(), view.is_response()),
            (Language::Go, true, false)
        );
        assert_eq!(pairs(&view), [("k", "v")]);
    }

    #[test]
    fn absent_and_null_members_have_their_defaults() {
        for text in ["{}", r#"{"code":null,"extFields":null,"remark":null,"version":null}"#] {
            let view = json(text).unwrap();
            assert_eq!((view.code, view.version, view.remark.clone()), (0, 0, None));
            assert!(view.ext.is_empty());
        }
    }

    #[test]
    fn field_values_that_are_no_strings_are_their_text() {
        let view =
            json(r#"{"extFields":{"n":12,"f":-1.5,"b":true,"z":null,"o":{"a":[1]}}}"#).unwrap();
        assert_eq!(
            pairs(&view),
            [("n", "12"), ("f", "-1.5"), ("b", "true"), ("o", r#"{"a":[1]}"#)]
        );
    }

    #[test]
    fn languages_are_names_or_numbers_and_unknown_ones_are_other() {
        for (text, language) in [
            (r#"{"language":"CPP"}"#, Language::Cpp),
            (r#"{"language":9}"#, Language::Go),
            (r#"{"language":99}"#, Language::Other),
            (r#"{"language":"ZIG"}"#, Language::Other),
            (r#"{"language":null}"#, Language::Other),
            ("{}", Language::Java),
        ] {
            assert_eq!(json(text).unwrap().language, language, "{text}");
        }
    }

    #[test]
    fn escapes_are_read_and_half_a_surrogate_pair_is_replaced() {
        let text = r#"{"remark":"a\"\\\/\b\f\n\r\t\u0001\u00e9\ud834\udd1e|\ud834|\udd1e|\ud834\u0041 and a longer run of text"}"#;
        let expected =
            "a\"\\/\u{8}\u{c}\n\r\t\u{1}é𝄞|\u{fffd}|\u{fffd}|\u{fffd}A and a longer run of text";
        assert_eq!(json(text).unwrap().remark.as_deref(), Some(expected));
    }

    #[test]
    fn only_text_with_escapes_is_copied() {
        let view = json(r#"{"extFields":{"k":"plain","e":"\u0001"}}"#).unwrap();
        let copied: Vec<_> = view.ext.fields.iter().map(|(_, value)| value.is_copied()).collect();
        assert_eq!(copied, [false, true]);
    }

    #[test]
    fn nothing_of_an_earlier_header_is_left_in_its_place() {
        let full = r#"{"code":1,"extFields":{"a":"b","c":"\u0001"},"flag":1,"language":"GO","opaque":2,"remark":"r","version":3}"#;
        let mut view = json(full).unwrap();
        let empty = compact(b"", b"");
        for (encoding, bytes) in [
            (Encoding::Json, &b"{}"[..]),
            (Encoding::Compact, &empty[..]),
            (Encoding::Json, &br#"{"extFields":{"k":"\u0002v","l":"w"}}"#[..]),
        ] {
            view.read(encoding, bytes).unwrap();
            assert_eq!(view, HeaderView::parse(encoding, bytes).unwrap());
            view.read(Encoding::Json, &full.as_bytes()[..full.len() - 1]).unwrap_err();
        }
    }

    #[test]
    fn last_of_a_repeated_field_counts() {
        assert_eq!(json(r#"{"extFields":{"k":"1","k":"2"}}"#).unwrap().ext.get("k"), Some("2"));
    }

    #[test]
    fn broken_json_is_named_with_its_place() {
        for (text, error) in [
            ("", "header byte 0: expected `{`"),
            ("[]", "header byte 0: expected `{`"),
            (r#"{"code":1}x"#, "1 bytes follow the header"),
            (r#"{"code":1,}"#, "header byte 10: expected a string"),
            (r#"{"code":01}"#, "header byte 9: expected `,` or `}`"),
            (r#"{"code":"x"}"#, "header member code is \"x\", expected a 32-bit integer"),
            (
                r#"{"opaque":2147483648}"#,
                "header member opaque is \"2147483648\", expected a 32-bit integer",
            ),
            (r#"{"remark":"abc"#, "header byte 14: expected end of the string"),
            (r#"{"remark":"\x"}"#, "header byte 13: expected an escape"),
            (r#"{"remark":"\u00g0"}"#, "header byte 15: expected a hexadecimal digit"),
            (r#"{"extFields":[]}"#, "header byte 13: expected an object or null"),
            (r#"{"a":tru}"#, "header byte 5: expected a value"),
            (r#"{"a":-}"#, "header byte 6: expected a digit"),
        ] {
            match json(text) {
                Err(found) => assert_eq!(found.to_string(), error, "{text}"),
                Ok(view) => panic!("{text} was read as {view:?}"),
            }
        }
        let error = HeaderView::parse(Encoding::Json, b"{\"a\":\"\xff\"}");
        assert_eq!(error, Err(ParseError::NotUtf8 { at: 6 }));
    }

    #[test]
    fn nesting_and_number_of_fields_are_bounded() {
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        assert!(matches!(json(&deep), Err(ParseError::TooDeep { .. })));
        let deep = format!("{{\"a\":{}", "{\"a\":".repeat(100_000));
        assert!(matches!(json(&deep), Err(ParseError::TooDeep { .. })));
        let many =
            format!("{{\"extFields\":{{{}}}}}", vec!["\"k\":\"\""; FIELDS_MAX + 1].join(","));
        assert_eq!(json(&many), Err(ParseError::TooManyFields { limit: FIELDS_MAX }));
    }

    #[test]
    fn numbers_are_read_whatever_their_length_and_whatever_follows_them() {
        for number in [0, 7, 10, -1, 999_999_999, 1_000_000_000, i32::MAX, i32::MIN] {
            for text in [
                format!("{{\"opaque\":{number}}}"),
                format!("{{\"opaque\":{number},\"x\":1}}"),
                format!("{{\"opaque\": {number} }}"),
                format!("{{\"opaque\":\"{number}\"}}"),
            ] {
                assert_eq!(json(&text).map(|view| view.opaque), Ok(number), "{text}");
            }
        }
        for text in ["00", "01", "1x", "1.5", "-", "", "12345678901", "999999999"] {
            assert!(json(&format!("{{\"opaque\":{text}")).is_err(), "{text}");
        }
    }

    /// A compact header around the given remark and fields.
    fn compact(remark: &[u8], fields: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 106, 9, 1, 0xdf, 0, 0, 0, 3, 0, 0, 0, 1];
        for part in [remark, fields] {
            bytes.extend((part.len() as u32).to_be_bytes());
            bytes.extend(part);
        }
        bytes
    }

    #[test]
    fn compact_header_is_read_and_empty_texts_are_absent() {
        let bytes = compact(b"", b"\0\x01k\0\0\0\x01v\0\x01e\0\0\0\0");
        let view = HeaderView::parse(Encoding::Compact, &bytes).unwrap();
        assert_eq!((view.code, view.version, view.opaque), (106, 479, 3));
        assert_eq!(
            (view.language, view.is_response(), view.remark.clone()),
            (Language::Go, true, None)
        );
        assert_eq!(pairs(&view), [("k", "v")]);
    }

    #[test]
    fn lengths_of_a_compact_header_are_checked() {
        let part = |bytes: &[u8]| match HeaderView::parse(Encoding::Compact, bytes) {
            Err(ParseError::Overrun { part, length, .. }) => (part, length),
            other => panic!("{other:?}"),
        };
        assert_eq!(part(&compact(b"", b"\xff\xff")), ("key", -1));
        assert_eq!(part(&compact(b"", b"\0\x02k")), ("key", 2));
        assert_eq!(part(&compact(b"", b"\0\x01k\x7f\xff\xff\xff")), ("value", 0x7fff_ffff));
        let mut bytes = compact(b"", b"");
        bytes[13..17].copy_from_slice(&(-2i32).to_be_bytes());
        assert_eq!(part(&bytes), ("remark", -2));
        let mut bytes = compact(b"", b"");
        bytes.push(0);
        let error = HeaderView::parse(Encoding::Compact, &bytes);
        assert_eq!(error, Err(ParseError::TrailingBytes { bytes: 1 }));
        let error = HeaderView::parse(Encoding::Compact, &compact(b"a\xff", b"")).unwrap_err();
        assert_eq!(error, ParseError::NotUtf8 { at: 18 });
        let many = b"\0\x01k\0\0\0\x01v".repeat(FIELDS_MAX + 1);
        let error = HeaderView::parse(Encoding::Compact, &compact(b"", &many)).unwrap_err();
        assert_eq!(error, ParseError::TooManyFields { limit: FIELDS_MAX });
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = HeaderView::parse(Encoding::Json, &bytes);
            let _ = HeaderView::parse(Encoding::Compact, &bytes);
        }

        #[test]
        fn json_of_any_kind_is_accepted_as_an_unknown_member(text in any_json_text()) {
            let header = format!("{{\"x\":{text},\"code\":7}}");
            prop_assert_eq!(json(&header).map(|view| view.code), Ok(7));
        }

        #[test]
        fn fields_are_read_in_every_spelling(
            fields in prop::collection::vec((any_spelling(), any_spelling(), 0..3_usize), 0..20),
        ) {
            let spelt = fields.iter().map(|((_, key), (_, value), blanks)| {
                let blank = " ".repeat(*blanks);
                format!("{blank}\"{key}\"{blank}:{blank}\"{value}\"{blank}")
            });
            let header = format!("{{\"extFields\":{{{}}}}}", spelt.collect::<Vec<_>>().join(","));
            let view = json(&header).unwrap();
            let written: Vec<_> =
                fields.iter().map(|((key, _), (value, _), _)| (&key[..], &value[..])).collect();
            prop_assert_eq!(pairs(&view), written);
        }

        #[test]
        fn what_is_read_is_json(text in r#"[{}\[\]",:0-2a\\u\-. tfn]{0,24}"#) {
            let header = format!("{{\"x\":{text}}}");
            if json(&header).is_ok() {
                // Half a surrogate pair is replaced here and refused there.
                let strict = serde_json::from_str::<serde_json::Value>(&header);
                prop_assert!(strict.is_ok() || header.contains("\\u"), "{header}");
            }
        }
    }

    /// A string and one of its spellings in JSON.
    fn any_spelling() -> impl Strategy<Value = (String, String)> {
        let special = prop::sample::select(vec!['"', '\\', '\u{1}', '\u{2}', '\n', '/', 'é', '𝄞']);
        let character = prop_oneof![prop::char::range('a', 'z'), special, any::<char>()];
        prop::collection::vec((character, any::<bool>()), 0..24).prop_map(|characters| {
            let spell = |&(character, in_full): &(char, bool)| {
                if in_full {
                    let mut units = [0; 2];
                    let units = character.encode_utf16(&mut units).iter();
                    return units.map(|unit| format!("\\u{unit:04x}")).collect::<Vec<_>>().concat();
                }
                let quoted = serde_json::to_string(&character).unwrap();
                quoted[1..quoted.len() - 1].to_owned()
            };
            let spelling = characters.iter().map(spell).collect();
            (characters.iter().map(|(character, _)| character).collect(), spelling)
        })
    }

    fn any_json_text() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|b| b.to_string()),
            any::<f64>().prop_filter("JSON", |f| f.is_finite()).prop_map(|f| f.to_string()),
            any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
        ];
        leaf.prop_recursive(6, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(" , "))),
                prop::collection::vec(inner, 0..4).prop_map(|items| {
                    let members: Vec<_> = items.iter().map(|v| format!("\"k\" : {v}")).collect();
                    format!("{{ {} }}", members.join(","))
                }),
            ]
        })
    }
}
