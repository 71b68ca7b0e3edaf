//! Reads single header fields of commands that are not hot.
use std::str::FromStr;

use gantry_remoting::{HeaderError, HeaderView};

pub(crate) struct Fields<'v, 'h>(pub(crate) &'v HeaderView<'h>);

impl<'v> Fields<'v, '_> {
    pub(crate) fn text(&self, field: &'static str) -> Result<&'v str, HeaderError> {
        self.0.ext.get(field).ok_or(HeaderError::Missing { field })
    }
    pub(crate) fn number<N: FromStr>(&self, field: &'static str) -> Result<N, HeaderError> {
        let text = self.text(field)?;
        text.parse().map_err(|_| HeaderError::invalid(field, text, "a number in range"))
    }
    pub(crate) fn optional_text(&self, field: &str) -> Option<&'v str> {
        self.0.ext.get(field)
    }
    pub(crate) fn optional<N: FromStr>(&self, field: &'static str) -> Result<Option<N>, HeaderError> {
        match self.0.ext.get(field) {
            None | Some("") => Ok(None),
            Some(_) => self.number(field).map(Some),
        }
    }
}
