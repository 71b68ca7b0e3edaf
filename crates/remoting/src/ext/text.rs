//! Where a text of a header stands: two numbers in place of a borrow.
//! Invariant: a place is one of whole characters, in the header or in what was copied from it.
//! Leaves both texts to `Ext`.

use std::ops::Range;

/// Where a text stands, in the header or among the copied.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Text {
    start: u32,
    end: u32,
}

/// Bit of [`Text::start`] that means "among the copied"; frames are far shorter than 2 GiB.
const COPIED: u32 = 1 << 31;

impl Text {
    pub(crate) fn in_source(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    pub(crate) fn in_copied(start: usize, end: usize) -> Self {
        Self { start: start as u32 | COPIED, end: end as u32 }
    }

    pub(crate) fn is_copied(self) -> bool {
        self.start & COPIED != 0
    }

    #[inline]
    pub(crate) fn of<'t>(self, source: &'t str, copied: &'t str) -> &'t str {
        let text = if self.is_copied() { copied } else { source };
        &text[self.place()]
    }

    /// The bytes of [`Text::of`], for comparisons: nothing has to be looked at to know that they are text.
    #[inline]
    pub(crate) fn bytes_of<'t>(self, source: &'t str, copied: &'t str) -> &'t [u8] {
        let text = if self.is_copied() { copied } else { source };
        &text.as_bytes()[self.place()]
    }

    #[inline]
    fn place(self) -> Range<usize> {
        (self.start & !COPIED) as usize..self.end as usize
    }
}
