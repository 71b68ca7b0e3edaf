//! Promises of the log, kept against disks that lose, change and refuse bytes.
//! Each test builds its own disk in memory.

mod append;
mod crash;
mod faults;
mod mark;
mod recovery;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use gantry_model::{PhysicalOffset, QueueId};
use gantry_record::Draft;

use super::{
    Damage, Log, LogOptions, LogWriter, OpenError, OpenReport, RecordBatch, RoomOptions, StoreId,
    Walked, memory_files::MemoryFiles, open, segment::segment_path,
};

const SEGMENT_BYTES: u64 = 4096;

struct World {
    disk: MemoryFiles,
    options: LogOptions,
    writer: LogWriter,
    log: Log,
    report: OpenReport,
}

fn options() -> LogOptions {
    LogOptions {
        dir: PathBuf::from("/log"),
        segment_bytes: SEGMENT_BYTES,
        new_store_id: StoreId([1; 16]),
        epoch: 0,
        scan_from: PhysicalOffset(0),
        room: RoomOptions::default(),
        block_bytes: 16 << 20,
    }
}

impl World {
    fn new() -> Self {
        Self::on(MemoryFiles::new())
    }

    fn on(disk: MemoryFiles) -> Self {
        Self::try_on(disk, options()).unwrap()
    }

    fn try_on(disk: MemoryFiles, options: LogOptions) -> Result<Self, OpenError> {
        let (writer, log, report) = open(&options, Arc::new(disk.clone()))?;
        Ok(Self { disk, options, writer, log, report })
    }

    /// As after a stop of the process: all that was written is there.
    fn reopen(self) -> Self {
        Self::try_on(self.disk, self.options).unwrap()
    }

    fn append(&mut self, bodies: &[&[u8]]) -> Vec<PhysicalOffset> {
        self.append_at(bodies, 1000)
    }

    fn append_at(&mut self, bodies: &[&[u8]], now_ms: u64) -> Vec<PhysicalOffset> {
        let mut batch = batch(bodies);
        let appended = self.writer.append(&mut batch, now_ms).unwrap();
        (0..batch.len()).map(|index| appended.start.plus(batch.offset_in_batch(index))).collect()
    }

    fn append_synced(&mut self, bodies: &[&[u8]]) -> Vec<PhysicalOffset> {
        let places = self.append(bodies);
        self.log.sync().unwrap();
        places
    }

    fn bodies(&self) -> Vec<Vec<u8>> {
        self.walk().0.into_iter().map(|(_, body)| body).collect()
    }

    fn walk(&self) -> (Vec<(PhysicalOffset, Vec<u8>)>, Vec<Damage>) {
        walk(&self.log)
    }

    /// Changes the byte at a position of the log, below the store.
    fn flip(&self, position: u64) {
        let (path, at) = self.place(position);
        self.disk.damage(&path, |bytes| bytes[at] ^= 0x41);
    }

    fn place(&self, position: u64) -> (PathBuf, usize) {
        let base = position / SEGMENT_BYTES * SEGMENT_BYTES;
        (segment_path(&self.options.dir, base), (position - base) as usize)
    }
}

fn walk(log: &Log) -> (Vec<(PhysicalOffset, Vec<u8>)>, Vec<Damage>) {
    let mut cursor = log.records(log.start(), log.written());
    let (mut records, mut damage) = (Vec::new(), Vec::new());
    while let Some(walked) = cursor.next().unwrap() {
        match walked {
            Walked::Record { position, record } => {
                assert_eq!(position, record.position());
                records.push((position, record.body().to_vec()));
            }
            Walked::Damage(found) => damage.push(found),
        }
    }
    (records, damage)
}

fn batch(bodies: &[&[u8]]) -> RecordBatch {
    let mut batch = RecordBatch::new();
    for body in bodies {
        batch.push(&draft(body)).unwrap();
    }
    batch
}

fn draft(body: &[u8]) -> Draft<'_> {
    let host = SocketAddr::from((Ipv4Addr::LOCALHOST, 10911));
    Draft {
        topic: "orders",
        queue: QueueId(3),
        flag: 0,
        sys_flag: 0,
        born_time_ms: 999,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_offset: 0,
        body,
        properties: b"KEYS\x01k\x02",
    }
}
