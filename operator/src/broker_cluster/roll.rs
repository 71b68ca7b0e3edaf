//! Which pod is replaced next.
//! Invariant: of a cluster's servers at most one is taken down at a time; one that is down already may go first; a
//! replaced server that fails stops the roll, so that a wrong image harms one broker alone.
//! Pure; leaves looking to `observe` and deleting to the reconciler.

use super::observe::{Life, Registration, Server};
use crate::labels::Component;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Every pod is of the newest revision.
    UpToDate,
    /// Nothing yet, for this reason.
    Wait(String),
    /// This pod is to be deleted: its successor will be of the newest revision.
    Replace {
        /// Its name.
        pod: String,
        /// Its uid, so that no successor is deleted in its place.
        uid: String,
    },
    /// A pod of the newest revision fails: the others are left as they are.
    Halt(String),
}

/// The next step. Brokers go before name servers: with a wrong image the names are still answered.
pub(super) fn next(servers: &[Server]) -> Step {
    let mut old: Vec<&Server> = servers.iter().filter(|server| server.is_replaceable()).collect();
    old.sort_by_key(|server| server.component == Component::NameServer);
    if old.is_empty() && servers.iter().all(|server| !server.outdated) {
        return Step::UpToDate;
    }
    if let Some(server) = old.iter().find(|server| server.life == Life::NeverReady) {
        return server.replace();
    }
    let settled = servers.iter().filter(|server| !server.is_replaceable());
    let blocked = settled.filter_map(|server| Some((server, server.unavailable()?)));
    let (mut failing, mut waiting) = (None, None);
    for (server, why) in blocked {
        let slot = if server.failing.is_some() { &mut failing } else { &mut waiting };
        slot.get_or_insert(why);
    }
    match (failing, waiting) {
        (Some(why), _) => return Step::Halt(why),
        (None, Some(why)) => return Step::Wait(why),
        (None, None) => {}
    }
    let of_those = |is: fn(&Server) -> bool| old.iter().find(|server| is(server));
    let down = of_those(|server| server.life != Life::Ready)
        .or_else(|| of_those(|server| server.registration == Registration::Missing));
    let unknown = of_those(|server| server.registration.is_unknown());
    match (down, unknown, old.first()) {
        (None, Some(server), _) => Step::Wait(server.unregistered()),
        (Some(server), ..) | (None, None, Some(server)) => server.replace(),
        (None, None, None) => Step::UpToDate,
    }
}

impl Server {
    /// Whether there is a pod of an older revision that has not been deleted yet.
    fn is_replaceable(&self) -> bool {
        self.outdated && !matches!(self.life, Life::Missing | Life::Stopping)
    }

    fn replace(&self) -> Step {
        Step::Replace { pod: self.pod.clone(), uid: self.uid.clone().unwrap_or_default() }
    }

    /// Why clients cannot use it, if they cannot.
    pub(super) fn unavailable(&self) -> Option<String> {
        let pod = &self.pod;
        match (self.life, &self.failing) {
            (Life::Missing, _) => Some(format!("pod {pod} does not exist yet")),
            (Life::Stopping, _) => Some(format!("pod {pod} stops")),
            (_, Some(why)) => Some(format!("pod {pod} {why}")),
            (Life::NeverReady | Life::NotReady, None) => Some(format!("pod {pod} is not ready")),
            (Life::Ready, None) => match self.registration {
                Registration::Needless | Registration::Known => None,
                Registration::Missing | Registration::Unknown => Some(self.unregistered()),
            },
        }
    }

    fn unregistered(&self) -> String {
        match self.registration {
            Registration::Unknown => {
                format!("no name server says whether {} is registered", self.pod)
            }
            _ => format!("{} is not registered yet", self.pod),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server from its name and words: `old`, `new`, `down`, `never`, `failing`, `stopping`, `missing`,
    /// `unregistered`, `unknown`.
    fn server(text: &str) -> Server {
        let words: Vec<&str> = text.split(' ').collect();
        let is = |word| words.contains(&word);
        let component =
            if words[0].starts_with("ns") { Component::NameServer } else { Component::Broker };
        let life = match () {
            () if is("missing") => Life::Missing,
            () if is("stopping") => Life::Stopping,
            () if is("never") => Life::NeverReady,
            () if is("down") || is("failing") => Life::NotReady,
            () => Life::Ready,
        };
        Server {
            pod: words[0].into(),
            component,
            uid: (!is("missing")).then(|| format!("uid-{}", words[0])),
            outdated: is("old"),
            life,
            failing: is("failing").then(|| "cannot pull its image".into()),
            registration: match component {
                Component::NameServer => Registration::Needless,
                Component::Broker if is("unregistered") => Registration::Missing,
                Component::Broker if is("unknown") => Registration::Unknown,
                Component::Broker => Registration::Known,
            },
            ..Server::default()
        }
    }

    fn step(servers: &[&str]) -> String {
        let servers: Vec<Server> = servers.iter().map(|text| server(text)).collect();
        match next(&servers) {
            Step::UpToDate => "up to date".into(),
            Step::Wait(why) => format!("wait: {why}"),
            Step::Replace { pod, uid } => {
                assert_eq!(uid, format!("uid-{pod}"));
                format!("replace {pod}")
            }
            Step::Halt(why) => format!("halt: {why}"),
        }
    }

    #[test]
    fn next_step_is_as_in_the_table() {
        let table: &[(&[&str], &str)] = &[
            (&["ns new", "b0 new", "b1 new"], "up to date"),
            (&["ns new", "b0 new failing"], "up to date"),
            // One after the other, brokers first.
            (&["ns old", "b0 old", "b1 old"], "replace b0"),
            (&["ns old", "b0 old stopping", "b1 old"], "wait: pod b0 stops"),
            (&["ns old", "b0 old missing", "b1 old"], "wait: pod b0 does not exist yet"),
            (&["ns old", "b0 new down", "b1 old"], "wait: pod b0 is not ready"),
            (&["ns old", "b0 new unregistered", "b1 old"], "wait: b0 is not registered yet"),
            (&["ns old", "b0 new", "b1 old"], "replace b1"),
            (&["ns old", "b0 new", "b1 new"], "replace ns"),
            (&["ns new down", "b0 old", "b1 old"], "wait: pod ns is not ready"),
            // A wrong image harms one broker.
            (&["ns old", "b0 new failing", "b1 old"], "halt: pod b0 cannot pull its image"),
            (&["ns old", "b0 new failing", "b1 old down"], "halt: pod b0 cannot pull its image"),
            (&["ns old", "b0 old never failing", "b1 old"], "replace b0"),
            // What never was ready may always be replaced, what is down goes first.
            (&["ns new down", "b0 new down", "b1 old never"], "replace b1"),
            (&["ns old", "b0 old", "b1 old down"], "replace b1"),
            (&["ns old", "b0 old down", "b1 old down"], "replace b0"),
            (&["ns old down", "b0 old", "b1 old"], "replace ns"),
            (&["ns old", "b0 old", "b1 old unregistered"], "replace b1"),
            // Without an answer of the name servers nothing that serves is touched.
            (
                &["ns old", "b0 old unknown", "b1 old unknown"],
                "wait: no name server says whether b0 is registered",
            ),
        ];
        for (servers, expected) in table {
            assert_eq!(step(servers), *expected, "{servers:?}");
        }
    }

    #[test]
    fn no_sequence_of_steps_takes_a_second_server_down() {
        // Every state that three servers can be in, one step further: who is replaced is down already, or nobody is.
        let states = [
            "old",
            "old down",
            "old unregistered",
            "old stopping",
            "new",
            "new down",
            "new failing",
            "new unregistered",
        ];
        for a in states {
            for b in states {
                for c in states {
                    let texts = [format!("b0 {a}"), format!("b1 {b}"), format!("b2 {c}")];
                    let servers: Vec<Server> = texts.iter().map(|text| server(text)).collect();
                    let Step::Replace { pod, .. } = next(&servers) else { continue };
                    let target = servers.iter().find(|server| server.pod == pod).unwrap();
                    let others = servers.iter().filter(|server| server.pod != pod);
                    let others_down =
                        others.filter(|server| server.unavailable().is_some()).count();
                    let was_down = target.unavailable().is_some();
                    assert!(was_down || others_down == 0, "{texts:?}: {pod}");
                }
            }
        }
    }
}
