//! Tag filters: which messages of a topic a subscription wants, as far as the broker looks.
//! Invariant: a filter never drops a message whose tag was asked for; it may keep one whose tag only has the same hash.
//! Leaves the comparison of texts to the consumer. Source: RocketMQ's `FilterAPI`.

use std::sync::Arc;

use gantry_record::tag_hash;

/// Most tags that one subscription may name.
pub const TAGS_MAX: usize = 1024;

/// Which tag hashes pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagFilter {
    /// Every message.
    All,
    /// Messages with one of these hashes, sorted.
    Codes(Arc<[i32]>),
}

/// Why an expression is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The expression is separators alone.
    #[error("the tag expression {expression:?} names no tag")]
    NoTag {
        /// The expression.
        expression: String,
    },
    /// The expression names too many tags.
    #[error("the tag expression names {tags} tags, the limit is {TAGS_MAX}")]
    TooManyTags {
        /// How many it names.
        tags: usize,
    },
}

impl TagFilter {
    /// Reads `TagA || TagB`; empty text and `*` mean everything.
    pub fn parse(expression: &str) -> Result<Self, FilterError> {
        if matches!(expression.trim(), "" | "*") {
            return Ok(Self::All);
        }
        let tags = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty());
        let mut codes: Vec<i32> = tags.map(tag_hash).take(TAGS_MAX + 1).collect();
        if codes.is_empty() {
            return Err(FilterError::NoTag { expression: expression.into() });
        }
        if codes.len() > TAGS_MAX {
            return Err(FilterError::TooManyTags { tags: codes.len() });
        }
        codes.sort_unstable();
        codes.dedup();
        Ok(Self::Codes(codes.into()))
    }

    /// Whether a message with this hash passes.
    pub fn accepts(&self, tag_hash: i64) -> bool {
        match self {
            Self::All => true,
            Self::Codes(codes) => codes.binary_search(&(tag_hash as i32)).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_and_blank_accept_everything() {
        for text in ["", " ", "*", " * "] {
            assert_eq!(TagFilter::parse(text), Ok(TagFilter::All));
        }
    }

    #[test]
    fn listed_tags_pass_and_others_do_not() {
        let filter = TagFilter::parse(" TagA||TagB || ").unwrap();
        assert!(filter.accepts(2_598_919));
        assert!(filter.accepts(i64::from(tag_hash("TagB"))));
        assert!(!filter.accepts(i64::from(tag_hash("TagC"))));
        assert!(!filter.accepts(0));
    }

    #[test]
    fn negative_hashes_pass_in_both_widths() {
        let tag =
            (0..10_000).map(|n| format!("a longer tag {n}")).find(|tag| tag_hash(tag) < 0).unwrap();
        let filter = TagFilter::parse(&tag).unwrap();
        assert!(filter.accepts(i64::from(tag_hash(&tag))));
    }

    #[test]
    fn separators_alone_and_too_many_tags_are_refused() {
        assert!(matches!(TagFilter::parse("||"), Err(FilterError::NoTag { .. })));
        let many = (0..=TAGS_MAX).map(|n| n.to_string()).collect::<Vec<_>>().join("||");
        assert!(matches!(TagFilter::parse(&many), Err(FilterError::TooManyTags { .. })));
    }
}
