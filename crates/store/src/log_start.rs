//! Log start records: from where on the log is kept, as the log itself says.
//! Invariant: a start that readers were told is in a synced record, so that no crash moves it back; it never lies behind
//! the record that says it.
//! Leaves the choice of a start to `retention` and the files to `log`.
//!
//! ```text
//! body = version u8 (1) | position u64
//! ```

use std::sync::atomic::Ordering;

use gantry_model::PhysicalOffset;
use gantry_record::RecordView;

use crate::{
    errors::OpenError,
    retention::RetentionError,
    ring::Side,
    state::StateError,
    store::Store,
    views::{View, ViewBatch, ViewError, ViewRead, layout},
};

/// Topic of the records that say where the log starts.
pub const START_TOPIC: &str = "rmq_sys_gantry_start";

const VERSION: u8 = 1;
const BODY_BYTES: usize = 9;

/// The body of a record that says that the log starts at `start`.
pub(crate) fn encode(start: PhysicalOffset) -> [u8; BODY_BYTES] {
    let mut body = [VERSION; BODY_BYTES];
    body[1..].copy_from_slice(&start.0.to_be_bytes());
    body
}

/// The start that `record`, one of `START_TOPIC`, says; the log may have been damaged in other ways since.
pub(crate) fn decode(record: &RecordView<'_>) -> Result<PhysicalOffset, StateError> {
    let body = record.body();
    let truncated = StateError::Truncated { needed: BODY_BYTES, available: body.len() };
    let (version, position) = body.split_first().ok_or(truncated)?;
    if *version != VERSION {
        return Err(StateError::Version { found: *version });
    }
    let position: [u8; 8] = position
        .try_into()
        .map_err(|_| StateError::Truncated { needed: BODY_BYTES, available: body.len() })?;
    Ok(PhysicalOffset(u64::from_be_bytes(position)).min(record.position()))
}

/// Puts the start that a record says into the views.
pub(crate) fn put(batch: &mut ViewBatch, start: PhysicalOffset) {
    batch.put(View::Meta, layout::LOG_START, &start.0.to_be_bytes());
}

/// The newest start among the records that the views hold; 0 if there is none.
pub(crate) fn of_views(views: &dyn ViewRead) -> Result<PhysicalOffset, ViewError> {
    let start = views.get(View::Meta, layout::LOG_START)?;
    let decode = |value: Vec<u8>| layout::decode_u64(View::Meta, layout::LOG_START, &value);
    start.map_or(Ok(PhysicalOffset(0)), |value| decode(value).map(PhysicalOffset))
}

impl Store {
    /// Tells the views, by the ring, what a start record that ends at `end` says.
    pub(crate) fn note_start(&self, start: PhysicalOffset, end: PhysicalOffset) {
        let mut ring = self.ring.lock();
        ring.push(None, Some(Side { end, log_start: Some(start), ..Side::default() }));
        self.ring_bytes.store(ring.bytes(), Ordering::Release);
    }

    /// Lets go of what lies before the newest start in the log: a crash came between the record and its files' end.
    pub(crate) fn finish_forgetting(&self, newest: PhysicalOffset) -> Result<(), OpenError> {
        let failed = |error: RetentionError| OpenError::Upkeep(error);
        if newest > self.log_start() {
            let unlinked = self.tail.lock().writer.unlink_before(newest);
            unlinked.map_err(|error| failed(error.into()))?;
            let dropped = self.upkeep.keys.drop_before(self.log_start());
            dropped.map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::QueueOffset;
    use gantry_record::encode as encode_record;

    use super::*;
    use crate::image::own_draft;

    fn decoded(body: &[u8], at: u64) -> Result<PhysicalOffset, StateError> {
        let mut bytes = Vec::new();
        let slot = encode_record(&own_draft(START_TOPIC, body), &mut bytes).unwrap();
        slot.seal(&mut bytes, QueueOffset(0), PhysicalOffset(at), 1);
        decode(&RecordView::verify(&bytes, PhysicalOffset(at)).unwrap())
    }

    #[test]
    fn start_round_trips_and_is_never_behind_its_record() {
        let body = encode(PhysicalOffset(4096));
        assert_eq!(decoded(&body, 9000).unwrap(), PhysicalOffset(4096));
        assert_eq!(decoded(&body, 4000).unwrap(), PhysicalOffset(4000));
    }

    #[test]
    fn body_of_another_length_or_version_is_an_error() {
        let body = encode(PhysicalOffset(4096));
        for cut in 0..body.len() {
            let outcome = decoded(&body[..cut], 9000);
            assert!(matches!(outcome, Err(StateError::Truncated { .. })), "{cut}: {outcome:?}");
        }
        assert!(decoded(&[&body[..], &[0]].concat(), 9000).is_err());
        let newer = [&[2], &body[1..]].concat();
        assert!(matches!(decoded(&newer, 9000), Err(StateError::Version { found: 2 })));
    }
}
