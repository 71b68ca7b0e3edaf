//! Feeds arbitrary bytes to the frame decoder, as a connection would.
//! Invariant: what is decoded encodes to the same bytes, and an error leaves the buffer as it was.
//! Leaves the header to the target `header`.

#![no_main]

use bytes::BytesMut;
use gantry_remoting::Frame;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut buffer = BytesMut::from(data);
    loop {
        let before = buffer.clone();
        match Frame::decode(&mut buffer) {
            Ok(Some(frame)) => {
                let mut encoded = BytesMut::new();
                frame.encode(&mut encoded).expect("a decoded frame is within the limit");
                assert_eq!(encoded, before[..before.len() - buffer.len()]);
            }
            Ok(None) | Err(_) => {
                assert_eq!(buffer, before);
                return;
            }
        }
    }
});
