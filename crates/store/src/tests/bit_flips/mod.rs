//! One flipped bit, anywhere in the folder: found on a read, at a start or by a scrub, reported with file and byte, and
//! never delivered as something else than what was sent. What is intact is served on.

mod keys;
mod lost_views;
mod records;
mod salvage;
mod scene;
mod scrub;
mod views;
