//! What the log may forget, and whether a state image has to be written first: decisions as pure functions.
//! Invariant: the segment being written never goes, and none that the views do not hold.
//! Leaves carrying them out to retention.

use gantry_model::PhysicalOffset;

use crate::{image::ImageAt, log::SegmentInfo, options::Retention};

/// A new image is begun only when the log has grown by so many times the last one: at most 6 % of it is images.
const GROWTH_PER_IMAGE: u64 = 16;

/// Up to where the log may be forgotten for its age or size: the end of a segment, `None` if nothing may go.
///
/// `applied` is the position up to which the views hold everything.
pub fn forget_before(
    segments: &[SegmentInfo],
    retention: Retention,
    trusted_ms: u64,
    applied: PhysicalOffset,
) -> Option<PhysicalOffset> {
    let mut bytes: u64 = segments.iter().map(|segment| segment.file_bytes).sum();
    let mut before = None;
    for (index, segment) in segments.iter().enumerate() {
        let next = segments.get(index + 1);
        let is_old = last_time_ms(segment, next)
            .is_some_and(|last_ms| trusted_ms.saturating_sub(last_ms) > retention.age_ms);
        let is_beyond = retention.bytes.is_some_and(|bytes_max| bytes > bytes_max);
        if next.is_none() || !segment.is_sealed || segment.end > applied || !(is_old || is_beyond) {
            break;
        }
        bytes -= segment.file_bytes;
        before = Some(segment.end);
    }
    before
}

/// Store time of a segment's last record; where damage hides it, the next one's header is not earlier.
fn last_time_ms(segment: &SegmentInfo, next: Option<&SegmentInfo>) -> Option<u64> {
    let known = |time_ms: u64| (time_ms > 0).then_some(time_ms);
    known(segment.last_time_ms).or_else(|| next.and_then(|next| known(next.first_time_ms)))
}

/// Whether the newest image allows to forget, and if not, whether a new one may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageStep {
    /// The newest image is new enough.
    Enough,
    /// A new one has to be written first.
    Write,
    /// A new one is needed, and the log has not grown enough since the last.
    Wait,
}

/// What has to be done about the image before everything up to `before` may go.
pub fn image_step(
    newest: Option<&ImageAt>,
    before: PhysicalOffset,
    written: PhysicalOffset,
) -> ImageStep {
    match newest {
        Some(image) if image.position >= before => ImageStep::Enough,
        Some(image) if written.0 - image.end.0 < GROWTH_PER_IMAGE * image.bytes => ImageStep::Wait,
        _ => ImageStep::Write,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(last_times_ms: &[u64]) -> Vec<SegmentInfo> {
        let count = last_times_ms.len() as u64;
        let infos = last_times_ms.iter().zip(0..).map(|(last_time_ms, n)| SegmentInfo {
            base: PhysicalOffset(n * 100),
            end: PhysicalOffset(n * 100 + 100),
            is_sealed: n + 1 < count,
            bytes: 90,
            file_bytes: 100,
            first_time_ms: last_time_ms.saturating_sub(5),
            last_time_ms: *last_time_ms,
            newest_image: None,
        });
        infos.collect()
    }

    const ALL_APPLIED: PhysicalOffset = PhysicalOffset(u64::MAX);

    #[test]
    fn segments_go_by_age_from_the_oldest_on_and_never_the_one_being_written() {
        let retention = Retention { age_ms: 100, bytes: None };
        let forget =
            |at_ms| forget_before(&segments(&[10, 20, 30, 40]), retention, at_ms, ALL_APPLIED);
        assert_eq!(forget(110), None);
        assert_eq!(forget(111), Some(PhysicalOffset(100)));
        assert_eq!(forget(125), Some(PhysicalOffset(200)));
        assert_eq!(forget(9_999), Some(PhysicalOffset(300)));
    }

    #[test]
    fn segments_go_by_size_until_the_rest_fits() {
        let forget = |bytes| {
            let retention = Retention { age_ms: u64::MAX, bytes: Some(bytes) };
            forget_before(&segments(&[10, 20, 30, 40]), retention, 50, ALL_APPLIED)
        };
        assert_eq!(forget(400), None);
        assert_eq!(forget(399), Some(PhysicalOffset(100)));
        assert_eq!(forget(200), Some(PhysicalOffset(200)));
        assert_eq!(forget(0), Some(PhysicalOffset(300)));
    }

    #[test]
    fn segment_that_the_views_do_not_hold_stays_with_all_behind_it() {
        let retention = Retention { age_ms: 0, bytes: Some(0) };
        let forget = |applied| {
            forget_before(&segments(&[10, 20, 30, 40]), retention, 999, PhysicalOffset(applied))
        };
        assert_eq!(forget(199), Some(PhysicalOffset(100)));
        assert_eq!(forget(99), None);
    }

    #[test]
    fn segment_whose_time_damage_hides_is_as_old_as_the_next_ones_header() {
        let retention = Retention { age_ms: 100, bytes: None };
        let forget =
            |at_ms| forget_before(&segments(&[0, 200, 300]), retention, at_ms, ALL_APPLIED);
        assert_eq!(forget(295), None);
        assert_eq!(forget(296), Some(PhysicalOffset(100)));
        assert_eq!(forget_before(&[], retention, 999, ALL_APPLIED), None);
    }

    #[test]
    fn image_is_written_when_needed_but_not_before_the_log_has_grown_by_16_times_the_last() {
        let at = PhysicalOffset;
        let image = ImageAt { begin: at(1000), end: at(1200), position: at(900), bytes: 100 };
        assert_eq!(image_step(None, at(1), at(2)), ImageStep::Write);
        assert_eq!(image_step(Some(&image), at(900), at(1200)), ImageStep::Enough);
        assert_eq!(image_step(Some(&image), at(901), at(2799)), ImageStep::Wait);
        assert_eq!(image_step(Some(&image), at(901), at(2800)), ImageStep::Write);
    }
}
