//! The program as a child process: started with a settings file, watched through what it prints.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use gantry_remoting::client::{Channel, ChannelSettings, RefuseRequests};

/// Longest time that anything may take: a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A child process, killed when the test is done with it.
pub(crate) struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
    log: PathBuf,
    /// `what=address` of the ready line.
    addresses: BTreeMap<String, String>,
}

impl Program {
    /// Starts the broker on a folder within `dir`, with `more` lines of settings.
    pub(crate) fn spawn(dir: &Path, more: &str) -> Self {
        Self::spawn_at(dir, 0, more)
    }

    /// The same with a known HTTP port, for tests that ask before it serves.
    pub(crate) fn spawn_at(dir: &Path, http_port: u16, more: &str) -> Self {
        let data_dir = dir.join("data");
        let settings = format!(
            "data_dir: {}\nbind: 127.0.0.1\nremoting_port: 0\nvip_channel: false\ngrpc_port: 0\n\
             http_port: {http_port}\nsegment_size: 16Mi\n{more}\n",
            data_dir.display()
        );
        let file = dir.join("broker.yaml");
        fs::write(&file, settings).unwrap();
        let log = dir.join("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_gantry-broker"));
        command.arg("--config").arg(file).stdout(Stdio::piped());
        let mut child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, log, addresses: BTreeMap::new() }
    }

    /// Starts it and waits until it serves.
    pub(crate) fn serving(dir: &Path, more: &str) -> Self {
        let mut program = Self::spawn(dir, more);
        program.wait_until_ready();
        program
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|error| panic!("{error}, it logged: {}", self.log()));
            if let Some(found) = line.strip_prefix("ready ") {
                let pairs = found.split(' ').filter_map(|pair| pair.split_once('='));
                self.addresses = pairs.map(|(key, value)| (key.into(), value.into())).collect();
                return;
            }
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log has `text`.
    pub(crate) fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn address(&self, of: &str) -> &str {
        &self.addresses[of]
    }

    pub(crate) async fn connect(&self) -> Channel {
        let settings = ChannelSettings::default();
        let address = self.address("remoting");
        Channel::connect(address, &settings, Arc::new(RefuseRequests)).await.unwrap()
    }

    /// The status of a GET and its body.
    pub(crate) fn get(address: &str, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
    }

    /// How nice each thread is, by its name: the higher, the lower its priority. Of several with one name any.
    pub(crate) fn nice_values(&self) -> BTreeMap<String, i32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        // A thread may end meanwhile.
        let stats =
            tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("stat")).ok());
        let nice_value = |stat: String| {
            // `number (name) state …`; the value is the 17th behind the name.
            let (head, fields) = stat.rsplit_once(") ").unwrap();
            let name = head.split_once('(').unwrap().1;
            (name.to_owned(), fields.split(' ').nth(16).unwrap().parse().unwrap())
        };
        stats.map(nice_value).collect()
    }

    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Holds the process: it has stopped when this returns.
    pub(crate) fn hold(&self) {
        self.signal("STOP");
        let stat = format!("/proc/{}/stat", self.child.id());
        let deadline = Instant::now() + PATIENCE;
        // The state stands behind the name, which is in parentheses.
        while !fs::read_to_string(&stat).unwrap().contains(") T ") {
            assert!(Instant::now() < deadline, "it is not held");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets a process that is held go on.
    pub(crate) fn let_go(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.log());
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
