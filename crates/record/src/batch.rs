//! The body of a batch: several messages in one send, or in one record of an inner batch.
//!
//! ```text
//! | size i32 | magic i32 = 0 | body crc i32 = 0 | flag i32 | body i32 + n | properties i16 + n |
//! ```
//!
//! Repeated; `size` counts itself. Source: RocketMQ remoting, request code 320.
//! Invariant: items are slices of the body; no more than the caller's limit are yielded.
//! Leaves to the broker what items may be: topics, sizes, properties.

/// Bytes of an item without body and properties.
pub const BATCH_ITEM_BYTES_MIN: usize = 22;

/// One message of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchItem<'a> {
    /// The application's flag.
    pub flag: i32,
    /// The body.
    pub body: &'a [u8],
    /// Properties as the client encoded them.
    pub properties: &'a [u8],
}

/// Why a body is not a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// An item is larger than what is left, or too small.
    #[error(
        "batch item {index} says {size} bytes, {available} are left, the smallest is {BATCH_ITEM_BYTES_MIN}"
    )]
    Size {
        /// Number of the item, from 0.
        index: usize,
        /// What the item says; 0 if less than four bytes are left.
        size: u32,
        /// Bytes left of the batch.
        available: usize,
    },
    /// Body and properties do not fill their item.
    #[error("{field} of batch item {index} says {bytes} bytes, the item is {size}")]
    Length {
        /// Number of the item, from 0.
        index: usize,
        /// `body` or `properties`.
        field: &'static str,
        /// What the field says.
        bytes: i64,
        /// Bytes of the item.
        size: usize,
    },
    /// The batch has more items than allowed.
    #[error("the batch has more than {items_max} items")]
    TooManyItems {
        /// Most items accepted.
        items_max: usize,
    },
}

/// Iterator over the items of a batch. Ends after the first error.
#[derive(Debug, Clone)]
pub struct BatchItems<'a> {
    rest: &'a [u8],
    index: usize,
    items_max: usize,
}

impl<'a> BatchItems<'a> {
    /// The items of `body`, at most `items_max`.
    pub fn new(body: &'a [u8], items_max: usize) -> Self {
        Self { rest: body, index: 0, items_max }
    }

    fn read(&mut self) -> Result<BatchItem<'a>, BatchError> {
        let (index, items_max) = (self.index, self.items_max);
        if index == items_max {
            return Err(BatchError::TooManyItems { items_max });
        }
        let (item, rest) = split_item(self.rest, index)?;
        self.rest = rest;
        self.index += 1;
        parse_item(item, index)
    }
}

impl<'a> Iterator for BatchItems<'a> {
    type Item = Result<BatchItem<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let item = self.read();
        if item.is_err() {
            self.rest = &[];
        }
        Some(item)
    }
}

/// Appends one item to a batch. Callers keep body and properties within the limits of a message.
pub fn put_batch_item(item: &BatchItem<'_>, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let size = BATCH_ITEM_BYTES_MIN + item.body.len() + item.properties.len();
    let too_long = |field, bytes| BatchError::Length { index: 0, field, bytes, size };
    let body = item.body.len() as i64;
    let properties = item.properties.len() as i64;
    if size > i32::MAX as usize {
        return Err(too_long("body", body));
    }
    let Ok(properties) = i16::try_from(properties) else {
        return Err(too_long("properties", properties));
    };
    out.reserve(size);
    out.extend_from_slice(&(size as u32).to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&item.flag.to_be_bytes());
    out.extend_from_slice(&(body as i32).to_be_bytes());
    out.extend_from_slice(item.body);
    out.extend_from_slice(&properties.to_be_bytes());
    out.extend_from_slice(item.properties);
    Ok(())
}

fn split_item(rest: &[u8], index: usize) -> Result<(&[u8], &[u8]), BatchError> {
    let available = rest.len();
    let size = rest.first_chunk::<4>().map_or(0, |size| u32::from_be_bytes(*size));
    if (size as usize) < BATCH_ITEM_BYTES_MIN {
        return Err(BatchError::Size { index, size, available });
    }
    rest.split_at_checked(size as usize).ok_or(BatchError::Size { index, size, available })
}

/// Magic and body checksum are 0 in every client and read by no broker.
fn parse_item(item: &[u8], index: usize) -> Result<BatchItem<'_>, BatchError> {
    let size = item.len();
    let wrong = |field, bytes| BatchError::Length { index, field, bytes, size };
    let number = |at: usize| i32::from_be_bytes(std::array::from_fn(|byte| item[at + byte]));
    let body_bytes = number(16);
    let (body, rest) = usize::try_from(body_bytes)
        .ok()
        .and_then(|bytes| item[20..].split_at_checked(bytes))
        .ok_or_else(|| wrong("body", body_bytes.into()))?;
    let (properties_bytes, properties) =
        rest.split_first_chunk::<2>().ok_or_else(|| wrong("body", body_bytes.into()))?;
    let properties_bytes = i16::from_be_bytes(*properties_bytes);
    if usize::try_from(properties_bytes) != Ok(properties.len()) {
        return Err(wrong("properties", properties_bytes.into()));
    }
    Ok(BatchItem { flag: number(12), body, properties })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VECTOR: &[u8] =
        b"\x00\x00\x00\x27\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x03one\x00\x0ek\x011\x02WAIT\x01true\x02\
        \x00\x00\x00\x23\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x03two\x00\x0aWAIT\x01true\x02";

    #[test]
    fn java_batch_is_read_and_written_byte_by_byte() {
        let items: Vec<_> = BatchItems::new(VECTOR, 2).map(Result::unwrap).collect();
        let expected = [
            BatchItem { flag: 0, body: b"one", properties: b"k\x011\x02WAIT\x01true\x02" },
            BatchItem { flag: 0, body: b"two", properties: b"WAIT\x01true\x02" },
        ];
        assert_eq!(items, expected);
        let mut out = Vec::new();
        for item in &items {
            put_batch_item(item, &mut out).unwrap();
        }
        assert_eq!(out, VECTOR);
    }

    #[test]
    fn more_items_than_allowed_are_refused_and_nothing_follows() {
        let mut items = BatchItems::new(VECTOR, 1);
        assert!(items.next().unwrap().is_ok());
        assert_eq!(items.next(), Some(Err(BatchError::TooManyItems { items_max: 1 })));
        assert_eq!(items.next(), None);
    }

    #[test]
    fn every_truncation_but_between_items_is_an_error() {
        for cut in 1..VECTOR.len() {
            let whole = BatchItems::new(&VECTOR[..cut], 9).all(|item| item.is_ok());
            assert_eq!(whole, cut == 0x27, "{cut}");
        }
    }

    #[test]
    fn properties_that_do_not_end_with_their_item_are_refused() {
        let mut item = VECTOR[..0x27].to_vec();
        item[24] = 0x0d;
        assert!(BatchItems::new(&item, 9).next().unwrap().is_err());
        item[24] = 0x0f;
        assert!(BatchItems::new(&item, 9).next().unwrap().is_err());
    }

    proptest! {
        #[test]
        fn items_round_trip(items in proptest::collection::vec(
            (any::<i32>(), any::<Vec<u8>>(), any::<Vec<u8>>()), 0..8,
        )) {
            let mut out = Vec::new();
            for (flag, body, properties) in &items {
                put_batch_item(&BatchItem { flag: *flag, body, properties }, &mut out).unwrap();
            }
            let read: Vec<_> = BatchItems::new(&out, 8)
                .map(|item| item.map(|i| (i.flag, i.body.to_vec(), i.properties.to_vec())))
                .collect::<Result<_, _>>()
                .unwrap();
            prop_assert_eq!(read, items);
        }

        #[test]
        fn arbitrary_bytes_never_panic(body: Vec<u8>) {
            BatchItems::new(&body, 16).for_each(drop);
        }
    }
}
