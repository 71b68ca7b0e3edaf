//! Feeds arbitrary bytes to the header parsers and the typed headers of the hot commands.
//! Invariant: a header that is read, written and read again is the same.
//! Leaves the frame around it to the target `frame`.

#![no_main]

use bytes::{Bytes, BytesMut};
use gantry_remoting::command::pull::PullRequest;
use gantry_remoting::command::send::SendRequest;
use gantry_remoting::{Command, Encoding, Frame, HeaderView};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&selector, data)) = data.split_first() else { return };
    let encoding = if selector & 1 == 0 { Encoding::Json } else { Encoding::Compact };
    let Ok(view) = HeaderView::parse(encoding, data) else { return };
    let _ = view.fields::<PullRequest<'_>>();
    let _ = SendRequest::read(view.request_code(), &view.ext);

    let command = Command::from_view(&view, Bytes::new());
    let mut wire = BytesMut::new();
    if command.encode(&mut wire).is_ok() {
        let frame = Frame::decode(&mut wire).expect("own frame").expect("whole frame");
        let again = Command::from_frame(frame).expect("own header");
        // The compact form holds 16 bits of the version; it came in as that many.
        assert_eq!(again, command);
    }
});
