//! Black-box tests of `gantry standalone` itself: what it applies at its start, and how it stops.
//! Invariant: each test has its own folder and free ports, and leaves no process behind.
//! Leaves the commands against it, and kills under load, to the tests beside this one.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

/// Longest time that anything may take: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A `gantry standalone`, killed when the test is done with it.
struct Standalone {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl Drop for Standalone {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Standalone {
    /// Starts it; lines of both outputs arrive as they are printed.
    fn spawn(data: &Path, arguments: &[&str]) -> Self {
        let mut command = gantry(&["standalone", "--bind", "127.0.0.1", "--log-level", "info"]);
        command.arg("--data").arg(data).stdout(Stdio::piped()).stderr(Stdio::piped());
        for port in ["--nameserver-port", "--remoting-port", "--grpc-port", "--http-port"] {
            command.args([port, "0"]);
        }
        let mut process = command.args(arguments).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(process.stdout.take().unwrap()), Box::new(process.stderr.take().unwrap())];
        for output in outputs {
            let sender = sender.clone();
            thread::spawn(move || {
                // The test may have seen enough.
                let mut lines = BufReader::new(output).lines().map_while(Result::ok);
                lines.try_for_each(|line| sender.send(line))
            });
        }
        Self { process, lines }
    }

    /// Waits for a line with these words.
    fn line(&self, words: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("no {words:?}: {error}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Waits until it serves; gives the address of its name server.
    fn name_server(&self) -> String {
        let line = self.line("ready nameserver=");
        line.split_whitespace().find_map(|word| word.strip_prefix("nameserver=")).unwrap().into()
    }

    /// Sends the signal and waits for the end.
    fn signal(mut self, signal: &str) -> ExitStatus {
        let kill = format!("kill -{signal} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        // Both outputs end with the process.
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            assert!(!line.contains("panicked"), "{line}");
        }
        self.process.try_wait().unwrap().unwrap_or_else(|| self.process.wait().unwrap())
    }
}

fn gantry(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
    command.args(arguments).env_remove("GANTRY_NAMESERVER").stdin(Stdio::null());
    command
}

fn json(name_server: &str, arguments: &[&str]) -> Value {
    let mut command = gantry(arguments);
    let output = command.args(["--output", "json", "--nameserver", name_server]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn run(name_server: &str, arguments: &[&str]) {
    let output = gantry(arguments).args(["--nameserver", name_server]).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// The samples, in a folder of the test's own: the same that an operator reads, the cluster among them.
fn samples(dir: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
    let to = dir.join("samples");
    fs::create_dir(&to).unwrap();
    for file in ["cluster.yaml", "topic.yaml", "group.yaml"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    to
}

#[test]
fn samples_are_applied_before_it_is_ready_and_applying_them_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let samples = samples(dir.path());
    let apply = ["--apply", samples.to_str().unwrap()];
    let progress = ["offset", "get", "--group", "CID_billing", "--topic", "OrderTopic"];
    let first = Standalone::spawn(&dir.path().join("data"), &apply);
    let name_server = first.name_server();
    let topic = json(&name_server, &["topic", "get", "OrderTopic"]);
    let group = json(&name_server, &["group", "get", "CID_billing"]);
    for number in 0..8 {
        let body = number.to_string();
        run(&name_server, &["message", "send", "--topic", "OrderTopic", "--body", &body]);
    }
    let backlog = json(&name_server, &progress);
    assert!(backlog.to_string().contains("OrderTopic"), "{backlog}");
    assert!(first.signal("TERM").success());

    let second = Standalone::spawn(&dir.path().join("data"), &apply);
    let name_server = second.name_server();
    assert_eq!(json(&name_server, &["group", "get", "CID_billing"]), group);
    assert_eq!(json(&name_server, &progress), backlog, "it starts where it did");
    assert_eq!(json(&name_server, &["topic", "get", "OrderTopic"]), topic);
    assert!(second.signal("INT").success());
}

#[test]
fn unknown_key_ends_it_with_one_line_that_names_file_line_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let samples = samples(dir.path());
    let file = samples.join("group.yaml");
    let text = fs::read_to_string(&file).unwrap().replace("startFrom", "startfrom");
    let line = 1 + text.lines().position(|line| line.contains("startfrom")).unwrap();
    fs::write(&file, text).unwrap();
    let mut standalone =
        Standalone::spawn(&dir.path().join("data"), &["--apply", samples.to_str().unwrap()]);
    let error = standalone.line("startfrom");
    for words in ["group.yaml", "unknown field `startfrom`", &format!("line {line}")] {
        assert!(error.contains(words), "{words:?} in {error}");
    }
    assert!(standalone.lines.recv_timeout(PATIENCE).is_err(), "one line");
    assert!(!standalone.process.wait().unwrap().success());
    assert!(!dir.path().join("data/broker").exists(), "nothing was made");
}

/// A host that never resolves holds up the start for ever, as a long recovery does for a while.
#[test]
fn signal_ends_a_start_that_is_under_way_at_once_and_with_success() {
    for signal in ["TERM", "INT"] {
        let dir = tempfile::tempdir().unwrap();
        let standalone = Standalone::spawn(dir.path(), &["--advertise", "nowhere.invalid"]);
        standalone.line("nowhere.invalid");
        assert!(standalone.signal(signal).success(), "{signal}");
    }
}

#[test]
fn log_size_that_is_too_small_or_unknown_ways_at_a_full_log_end_it_and_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 2] = [
        (
            &["--segment-size", "16Mi", "--log-size-max", "64Mi"],
            "log_size_max is 64Mi, expected 128Mi to 1024Ti: at least eight times segment_size",
        ),
        (&["--on-full", "delete"], "possible values: refuse, delete_oldest"),
    ];
    for (arguments, words) in cases {
        let mut standalone = Standalone::spawn(dir.path(), arguments);
        standalone.line(words);
        assert!(!standalone.process.wait().unwrap().success(), "{arguments:?}");
    }
}

#[test]
fn second_one_in_the_same_folder_is_refused_by_name_and_the_first_serves_on() {
    let dir = tempfile::tempdir().unwrap();
    let first = Standalone::spawn(dir.path(), &[]);
    let name_server = first.name_server();
    let mut second = Standalone::spawn(dir.path(), &[]);
    let error = second.line("in use");
    assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
    assert!(!second.process.wait().unwrap().success());
    run(&name_server, &["topic", "create", "orders"]);
    assert!(first.signal("TERM").success());
}
