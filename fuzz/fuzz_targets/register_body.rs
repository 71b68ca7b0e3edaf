//! Feeds arbitrary bytes to the readers of a broker's registration, plain and compressed.
//! Invariant: a registration that is read can be written compressed and read again.
//! Leaves what a name server does with it to the name server.

#![no_main]

use gantry_remoting::command::register::RegisterBody;
use libfuzzer_sys::fuzz_target;

const INFLATED_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((&selector, data)) = data.split_first() else { return };
    let version = if selector & 2 == 0 { 479 } else { 30 };
    let read = RegisterBody::read(data, selector & 1 == 1, version, INFLATED_BYTES_MAX);
    if let Ok(body) = read {
        let written = body.write_compressed();
        let again = RegisterBody::read(&written, true, 479, 8 * INFLATED_BYTES_MAX);
        assert!(again.is_ok(), "{again:?}");
    }
});
