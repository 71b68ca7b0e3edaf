//! One request of a peer, and what may be answered: fields are read and checked here.
//! Invariant: a name or address that passed is fit for lists, logs and routes, and of bounded length.
//! Leaves what a request does to the service.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use gantry_remoting::{HeaderView, ResponseCode, server::Connection};

use crate::routes::Member;

/// Longest name, address or zone that a peer may send, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 255;

/// Longest remark of a refusal: the longest name and the reason around it.
const REMARK_BYTES_MAX: usize = 512;

/// An answer that is no error.
#[derive(Default)]
pub(crate) struct Reply {
    pub(crate) ext: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn body(body: Bytes) -> Self {
        Self { body, ..Self::default() }
    }

    pub(crate) fn ext(key: &'static str, value: impl fmt::Display) -> Self {
        Self { ext: vec![(key, value.to_string())], ..Self::default() }
    }
}

/// An answer that is an error.
pub(crate) struct Refusal {
    pub(crate) code: ResponseCode,
    pub(crate) remark: String,
}

impl Refusal {
    /// A refusal whose remark is cut where nobody reads on: it may repeat what the peer sent.
    pub(crate) fn new(code: ResponseCode, remark: impl Into<String>) -> Self {
        let mut remark = remark.into();
        remark.truncate(remark.floor_char_boundary(REMARK_BYTES_MAX));
        Self { code, remark }
    }

    pub(crate) fn error(error: &impl fmt::Display) -> Self {
        Self::new(ResponseCode::SYSTEM_ERROR, error.to_string())
    }
}

pub(crate) type Handled = Result<Reply, Refusal>;

/// One request with its header read.
pub(crate) struct Call<'r> {
    pub(crate) view: HeaderView<'r>,
    pub(crate) body: &'r Bytes,
    pub(crate) connection: &'r Arc<Connection>,
}

impl Call<'_> {
    pub(crate) fn required(&self, key: &str) -> Result<&str, Refusal> {
        let value = self.view.ext.get(key).filter(|value| !value.is_empty());
        value.ok_or_else(|| Refusal::error(&format!("header field {key} is missing")))
    }

    /// A name that lists, logs and metrics may show.
    pub(crate) fn name(&self, key: &str) -> Result<&str, Refusal> {
        let name = self.required(key)?;
        let is_fit = name.len() <= TEXT_BYTES_MAX && !name.chars().any(char::is_control);
        is_fit.then_some(name).ok_or_else(|| {
            let expected = "at most 255 bytes without control characters";
            Refusal::error(&format!("header field {key} is not valid, expected {expected}"))
        })
    }

    /// An address; there are clients that take routes apart at commas, colons and quotes.
    pub(crate) fn addr(&self, key: &str) -> Result<&str, Refusal> {
        let addr = self.name(key)?;
        let is_fit = |c: char| c.is_ascii_alphanumeric() || ".:-_[]%".contains(c);
        addr.chars().all(is_fit).then_some(addr).ok_or_else(|| {
            Refusal::error(&format!("header field {key} is {addr:?}, expected host:port"))
        })
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.view.ext.get(key).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|number| *number >= 0);
        let refusal = || {
            let shown: String = text.chars().take(32).collect();
            Refusal::error(&format!(
                "header field {key} is {shown:?}, expected a number of at least 0"
            ))
        };
        number.map(Some).ok_or_else(refusal)
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.view.ext.get(key).map(|value| value.eq_ignore_ascii_case("true"))
    }

    pub(crate) fn member(&self) -> Result<Member, Refusal> {
        let id = self.number("brokerId")?;
        let missing = || Refusal::error(&"header field brokerId is missing");
        Ok(Member {
            cluster: self.name("clusterName")?.to_owned(),
            broker: self.name("brokerName")?.to_owned(),
            id: id.ok_or_else(missing)?.unsigned_abs(),
            addr: self.addr("brokerAddr")?.to_owned(),
        })
    }

    /// The zone to which the client wants its route cut.
    pub(crate) fn zone_asked(&self) -> Option<&str> {
        let wanted = self.flag("__ZONE_MODE") == Some(true);
        self.view.ext.get("__ZONE_NAME").filter(|zone| wanted && !zone.is_empty())
    }
}
