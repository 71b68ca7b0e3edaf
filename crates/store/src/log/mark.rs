//! The mark behind the last record of a log that rests: without it rot there would be taken for a torn tail, which is
//! cut off with everything behind it.
//! Invariant: a log that rests gets one mark and no more; a mark never tells more than what is synced.
//! Leaves to the store's owner when the log rests. The marks of a log that does not are written by its appends.

use super::{AppendError, LogWriter, RecordBatch, spare::Purpose, writer::Foretold};

impl LogWriter {
    /// Writes a mark behind the last record if everything is synced and no mark ends the log yet; says whether it did.
    ///
    /// Where it would need another segment and there is no room for one, there is none.
    pub fn end_with_mark(&mut self) -> Result<bool, AppendError> {
        let is_empty = self.log.start().0 == self.at;
        if is_empty || self.ended == self.at || self.log.synced().0 != self.at {
            return Ok(false);
        }
        let mark = Some(self.at);
        // In the segment being written there is room also on a disk that is full.
        let purpose = if self.fits(0, mark) { Purpose::State } else { Purpose::Messages };
        self.foretold = Some(Foretold { mark });
        // It tells of no new time: what lies before it does not look younger.
        match self.append_for(purpose, &mut RecordBatch::new(), self.last_time_ms) {
            Ok(appended) => self.ended = appended.end.0,
            Err(AppendError::Full { .. } | AppendError::Short(_)) => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}
