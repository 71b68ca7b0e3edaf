//! Programs that run as pods: the `gantry` command line and RocketMQ's Java clients.
//! Invariant: each runs as the `restricted` profile wants it: not as root, on a read-only root.
//! Leaves what a program prints to the test that started it.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::{
    Api,
    api::{DeleteParams, LogParams, PostParams},
};
use serde_json::json;

use crate::{Stage, settings, until, wait};

/// A program, its image and its arguments.
#[derive(Debug, Clone)]
pub struct Program {
    image: String,
    command: Vec<String>,
    args: Vec<String>,
}

impl Program {
    /// The command line of the project, against a name server.
    pub fn gantry(nameserver: &str, args: &[&str]) -> Self {
        let mut args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        args.extend(["--nameserver".to_owned(), nameserver.to_owned()]);
        Self { image: settings::image("gantry"), command: Vec::new(), args }
    }

    /// A class of `tests/java`, with the Java client of that version.
    pub fn java(version: &str, class: &str, args: &[&str]) -> Self {
        let java = ["java", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
        let paths = [
            "-Duser.home=/tmp".to_owned(),
            "-Drocketmq.home.dir=/tmp".to_owned(),
            "-Drocketmq.client.logRoot=/tmp/rocketmqlogs".to_owned(),
            "-cp".to_owned(),
            format!("/clients/{version}/*"),
            format!("dev.gantry.clients.{class}"),
        ];
        Self {
            image: settings::image("gantry-java"),
            command: java.into_iter().map(str::to_owned).chain(paths).collect(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        }
    }

    /// As the spec of a pod, which ends with the program or is started again with it.
    pub fn spec(&self, restart: Restart) -> PodSpec {
        let policy = match restart {
            Restart::Never => "Never",
            Restart::Always => "Always",
        };
        let spec = json!({
            "restartPolicy": policy,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 20,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "program",
                "image": self.image,
                "imagePullPolicy": "IfNotPresent",
                "command": self.command,
                "args": self.args,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
                "volumeMounts": [{ "name": "tmp", "mountPath": "/tmp" }],
            }],
            "volumes": [{ "name": "tmp", "emptyDir": {} }],
        });
        serde_json::from_value(spec).expect("the literal above has the shape of a pod's spec")
    }
}

/// Whether a program is started again after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// It runs once.
    Never,
    /// It is a service.
    Always,
}

/// A program that was started in a pod of that name.
#[derive(Clone)]
pub struct Running {
    pods: Api<Pod>,
    /// Name of its pod.
    pub name: String,
}

/// How far a pod is.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// It has not ended; the text says what it does.
    Before(String),
    Succeeded,
    Failed,
}

impl Phase {
    fn ended(&self) -> bool {
        !matches!(self, Self::Before(_))
    }
}

impl Stage {
    /// Starts a program in a pod of that name.
    ///
    /// # Errors
    /// When the API server refuses the pod.
    pub async fn start(&self, name: &str, program: &Program) -> Result<Running> {
        let mut pod = Pod { spec: Some(program.spec(Restart::Never)), ..Pod::default() };
        pod.metadata.name = Some(name.to_owned());
        let pods: Api<Pod> = self.api();
        pods.create(&PostParams::default(), &pod).await?;
        Ok(Running { pods, name: name.to_owned() })
    }

    /// Runs a program in a pod of that name to its end, removes the pod and returns what it printed.
    ///
    /// # Errors
    /// When it does not end with 0, with what it printed.
    pub async fn run(&self, name: &str, program: &Program) -> Result<String> {
        let running = self.start(name, program).await?;
        let printed = running.end().await?;
        running.pods.delete(name, &DeleteParams::default()).await?;
        Ok(printed)
    }
}

impl Running {
    /// What it printed so far.
    ///
    /// # Errors
    /// While it has not begun.
    pub async fn printed(&self) -> Result<String> {
        Ok(self.pods.logs(&self.name, &LogParams::default()).await?)
    }

    /// Waits until it printed `count` lines that begin with `start`.
    ///
    /// # Errors
    /// When it ends before, or does not do so for long.
    pub async fn prints(&self, start: &str, count: usize) -> Result<()> {
        let what = format!("{} prints {count} lines \"{start}…\"", self.name);
        let seen = until(&what, wait::LATER, async || {
            let ended = self.phase().await?.ended();
            let seen = after(&self.printed().await?, start).len();
            ensure!(seen >= count || ended, "{seen} lines");
            Ok(seen)
        })
        .await?;
        ensure!(seen >= count, "{} ended after {seen} of {count} lines \"{start}…\"", self.name);
        Ok(())
    }

    async fn phase(&self) -> Result<Phase> {
        let status = self.pods.get(&self.name).await?.status.unwrap_or_default();
        Ok(match status.phase.as_deref() {
            Some("Succeeded") => Phase::Succeeded,
            Some("Failed") => Phase::Failed,
            _ => Phase::Before(format!("{:?}, {:?}", status.phase, status.container_statuses)),
        })
    }

    /// Waits for its end and returns what it printed.
    ///
    /// # Errors
    /// When it does not end with 0, with what it printed.
    pub async fn end(&self) -> Result<String> {
        let phase = until(&format!("{} ends", self.name), wait::LATER, async || {
            let phase = self.phase().await?;
            ensure!(phase.ended(), "{phase:?}");
            Ok(phase)
        })
        .await?;
        let printed = self.printed().await?;
        ensure!(phase == Phase::Succeeded, "{} failed:\n{printed}", self.name);
        Ok(printed)
    }
}

/// Words that follow `start` on the lines that begin with it.
pub fn after<'a>(printed: &'a str, start: &str) -> Vec<&'a str> {
    printed.lines().filter_map(|line| line.strip_prefix(start)).map(str::trim).collect()
}

/// Whether a pod takes part: one that is being deleted does not.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}
