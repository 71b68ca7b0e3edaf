//! What needs no server: version, completion, wrong usage, and a server that is not there.

use std::net::TcpListener;

use super::world::*;

#[test]
fn version_is_printed_in_both_ways() {
    let version = concat!("gantry ", env!("CARGO_PKG_VERSION"));
    for argument in ["version", "--version"] {
        let ended = run(&mut gantry(&[argument]));
        assert_eq!((ended.code, ended.out.trim_end()), (0, version));
    }
}

#[test]
fn completion_script_is_printed_for_each_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ended = run(&mut gantry(&["completion", shell]));
        assert_eq!((ended.code, &*ended.err), (0, ""), "{shell}");
        for word in ["gantry", "broker-status", "unique-key"] {
            assert!(ended.out.contains(word), "the script for {shell} knows {word}");
        }
    }
    assert_eq!(run(&mut gantry(&["completion", "tcsh"])).code, 2);
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_wrong() {
    let cases: [(&[&str], &str); 9] = [
        (&[], "Usage"),
        (&["topics"], "topics"),
        (&["topic", "create", "a/b"], "a/b"),
        (&["topic", "create", "t", "--queues", "0"], "--queues"),
        (&["message", "send", "--topic", "t"], "--body"),
        (&["message", "send", "--topic", "t", "--body", "x", "--rate", "0"], "--rate"),
        (&["message", "query", "--topic", "t"], "--unique-key"),
        (&["message", "query", "--id", "zz"], "expected 32 or 56"),
        (&["message", "query", "--key", "k"], "--topic"),
    ];
    for (arguments, words) in cases {
        let ended = run(&mut gantry(arguments));
        assert_eq!((ended.code, &*ended.out), (2, ""), "{arguments:?}: {ended:?}");
        assert!(ended.err.contains(words), "{arguments:?}: {}", ended.err);
    }
}

#[test]
fn server_that_is_not_there_ends_with_4_and_names_the_address() {
    // Nobody listens at a port that was let go a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let commands: [&[&str]; 5] = [
        &["topic", "list"],
        &["group", "list"],
        &["cluster", "list"],
        &["message", "query", "--topic", "t", "--key", "k"],
        &["message", "send", "--topic", "t", "--body", "x"],
    ];
    for command in commands {
        let ended = run(gantry(command).args(["--nameserver", &address]));
        assert_eq!((ended.code, &*ended.out), (4, ""), "{command:?}: {ended:?}");
        assert!(ended.err.contains(&address), "{command:?}: {}", ended.err);
    }
}
