//! Frames that are wrong: files of a corpus and frames of clients, each changed in one of several ways.
//! Invariant: the same seed gives the same frames in the same order; a connection that the server closes is opened anew.
//! Leaves judging what the server did to the soak.

use std::{
    fs, io,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Instant,
};

use anyhow::{Context, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{peers::Pace, request};

/// Of the generator of changes.
const SEED: u64 = 0x6761_6E74_7279;
/// Connections in use at a time.
const CONNECTIONS: usize = 16;
/// Frames of one connection, on average: one that announces 16 MiB would otherwise swallow all that follow.
const FRAMES_EACH: u32 = 64;
/// Bytes that mean something in a header, or must not be in one.
const MARKS: &[u8] = b"\"{}:,0-9\\\x01\xFF";
/// Largest file of a corpus that is used.
const SEED_BYTES_MAX: usize = 64 * 1024;

/// What is changed and sent.
pub(crate) fn seeds(corpus: Option<&Path>) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut seeds: Vec<Vec<u8>> = HEADERS
        .iter()
        .map(|header| request::frame(header.as_bytes(), b"body of a frame"))
        .collect();
    let Some(folder) = corpus else { return Ok(seeds) };
    let mut read = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if !path.is_file() {
            continue;
        }
        let mut bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        bytes.truncate(SEED_BYTES_MAX);
        // Both as it is, for the frame decoder, and as the header of a frame that is whole.
        seeds.push(request::frame(&bytes, &[]));
        seeds.push(bytes);
        read += 1;
    }
    ensure!(read > 0, "{} holds no files", folder.display());
    Ok(seeds)
}

/// Headers as clients write them, of codes that look into their fields.
const HEADERS: [&str; 6] = [
    r#"{"code":310,"extFields":{"a":"g","b":"malformed","c":"TBW102","d":"4","e":"0","f":"0","g":"1","h":"0","i":"","j":"0","k":"false","m":"false"},"flag":0,"language":"JAVA","opaque":1,"serializeTypeCurrentRPC":"JSON","version":479}"#,
    r#"{"code":320,"extFields":{"a":"g","b":"malformed","c":"TBW102","d":"4","e":"0","f":"0","g":"1","h":"0","i":"","j":"0","k":"false","m":"true"},"flag":0,"language":"JAVA","opaque":2,"serializeTypeCurrentRPC":"JSON","version":479}"#,
    r#"{"code":11,"extFields":{"consumerGroup":"g","topic":"malformed","queueId":"0","queueOffset":"0","maxMsgNums":"32","sysFlag":"4","commitOffset":"0","suspendTimeoutMillis":"1","subscription":"*","subVersion":"0"},"flag":0,"language":"JAVA","opaque":3,"serializeTypeCurrentRPC":"JSON","version":479}"#,
    r#"{"code":34,"flag":0,"language":"JAVA","opaque":4,"serializeTypeCurrentRPC":"JSON","version":479}"#,
    r#"{"code":15,"extFields":{"consumerGroup":"g","topic":"malformed","queueId":"0","commitOffset":"1"},"flag":0,"language":"JAVA","opaque":5,"serializeTypeCurrentRPC":"JSON","version":479}"#,
    r#"{"code":36,"extFields":{"group":"g","offset":"0","delayLevel":"0"},"flag":0,"language":"JAVA","opaque":6,"serializeTypeCurrentRPC":"JSON","version":479}"#,
];

/// Sends changed seeds at a rate until `end`, and says how many it could write.
pub(crate) fn send(
    address: SocketAddr,
    seeds: &[Vec<u8>],
    rate: u32,
    end: Instant,
) -> io::Result<u64> {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut pace = Pace::new(rate, end);
    let mut streams: Vec<Option<TcpStream>> = (0..CONNECTIONS).map(|_| None).collect();
    let mut scratch = vec![0; 64 * 1024];
    let mut frames = 0;
    while pace.next() {
        let slot = &mut streams[frames as usize % CONNECTIONS];
        let stream = match slot {
            Some(stream) => stream,
            None => slot.insert(connect(address)?),
        };
        let bytes = changed(&seeds[random.random_range(0..seeds.len())], &mut random);
        let stuck = match stream.write(&bytes) {
            Ok(written) => written < bytes.len(),
            Err(_) => true,
        };
        frames += 1;
        let is_worn = random.random_range(0..FRAMES_EACH) == 0;
        if stuck || is_worn || is_over(stream, &mut scratch) {
            *slot = None;
        }
    }
    Ok(frames)
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_nonblocking(true)?;
                return Ok(stream);
            }
            // All ports wait for the end of their last connection.
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads what was answered; `true` when the server has closed.
fn is_over(stream: &mut TcpStream, scratch: &mut [u8]) -> bool {
    match stream.read(scratch) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// The seed with one thing wrong.
fn changed(seed: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    if bytes.is_empty() {
        bytes.extend_from_slice(&random.random::<u64>().to_be_bytes());
        return bytes;
    }
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..6) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        2 => bytes.truncate(at),
        3 => bytes.insert(at, random.random()),
        4 => number(&mut bytes, random),
        // Within the header of a frame whose lengths stay right.
        _ => {
            let at = if bytes.len() > 8 { random.random_range(8..bytes.len()) } else { at };
            bytes[at] = MARKS[random.random_range(0..MARKS.len())];
        }
    }
    bytes
}

/// One of the two lengths becomes anything.
fn number(bytes: &mut [u8], random: &mut StdRng) {
    let at = if random.random() { 0 } else { 4 };
    if let Some(length) = bytes.get_mut(at..at + 4) {
        length.copy_from_slice(&random.random::<u32>().to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_the_same_in_every_run() {
        let made = || {
            let (seeds, mut random) = (seeds(None).unwrap(), StdRng::seed_from_u64(SEED));
            (0..500)
                .map(|turn| changed(&seeds[turn % seeds.len()], &mut random))
                .collect::<Vec<_>>()
        };
        assert_eq!(made(), made());
    }

    #[test]
    fn every_seed_can_be_changed_whatever_its_length() {
        let mut random = StdRng::seed_from_u64(SEED);
        for length in (0..12).flat_map(|length| [length; 100]) {
            let seed = vec![7; length];
            assert!(changed(&seed, &mut random).len() <= length.max(8) + 1);
        }
    }
}
