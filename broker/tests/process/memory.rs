//! Memory: the broker says what it plans with, and does not start where it does not fit.

use super::program::Program;

#[test]
fn broker_shares_out_its_memory_and_shows_the_parts() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::serving(dir.path(), "memory: 64Mi");
    let log = program.log();
    let line = log.lines().find(|line| line.contains("memory shared out")).unwrap();
    assert!(line.contains("the setting memory, 64Mi") && line.contains("bound=63Mi"), "{line}");
    let (status, metrics) = Program::get(program.address("http"), "/metrics");
    assert_eq!(status, "200");
    let bound = |part: &str| {
        let part = format!("part=\"{part}\"");
        let of =
            |line: &&str| line.starts_with("gantry_memory_bound_bytes") && line.contains(&part);
        let line = metrics.lines().find(of).unwrap_or_else(|| panic!("{part} in {metrics}"));
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() >> 20
    };
    assert_eq!((bound("ring"), bound("cold_reads"), bound("base")), (8, 1, 16));
    assert!(
        metrics.lines().any(
            |line| line.starts_with("gantry_memory_limit_bytes") && line.ends_with(" 67108864")
        )
    );
}

#[test]
fn broker_that_does_not_fit_into_its_memory_says_so_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::spawn(dir.path(), "memory: 64Mi\nview_cache_size: 1Gi");
    let (status, log) = program.ended();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("add up to 1083Mi, more than the setting memory, 64Mi"), "{log}");
}
