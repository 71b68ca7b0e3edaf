//! The number by which brokers filter on a message's tag.
//! Invariant: equal to Java's `String.hashCode`, which clients compute too; 0 for no tag.
//! Leaves the comparison of the tag's text to the consumer, since hashes collide.

/// Java's `String.hashCode`: h = 31·h + c over UTF-16 units, wrapping at 32 bits.
pub fn tag_hash(tag: &str) -> i32 {
    let step = |hash: i32, unit: u16| hash.wrapping_mul(31).wrapping_add(i32::from(unit));
    if tag.is_ascii() {
        tag.bytes().fold(0, |hash, byte| step(hash, u16::from(byte)))
    } else {
        tag.encode_utf16().fold(0, step)
    }
}

#[cfg(test)]
mod tests {
    use super::tag_hash;

    #[test]
    fn tag_hash_is_javas_hash_code() {
        assert_eq!(tag_hash("TagA"), 2_598_919);
        assert_eq!(tag_hash(""), 0);
        // Values of a Java virtual machine: Latin-1, a surrogate pair, and two strings that collide.
        assert_eq!(tag_hash("é"), 233);
        assert_eq!(tag_hash("😀"), 0xD83D * 31 + 0xDE00);
        assert_eq!(tag_hash("polygenelubricants"), i32::MIN);
        assert_eq!(tag_hash("Aa"), tag_hash("BB"));
    }
}
