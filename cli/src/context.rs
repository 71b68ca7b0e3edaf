//! What all commands share: where the name server is, how results are printed, the client.
//! Invariant: one client for each command, shut down before the command ends.
//! Leaves the commands themselves to `commands`.

use clap::Args;
use gantry_client::{Admin, Client, ClientSettings};

use crate::output::Format;

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct GlobalArgs {
    /// Name servers, `host:port`, several separated by `;`.
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        env = "GANTRY_NAMESERVER",
        default_value = "127.0.0.1:9876"
    )]
    pub nameserver: String,
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// What a command works with.
pub(crate) struct Context {
    nameserver: String,
    /// How to print.
    pub format: Format,
}

impl Context {
    pub(crate) fn new(args: GlobalArgs) -> Self {
        Self { nameserver: args.nameserver, format: args.output }
    }

    /// Where the name servers are.
    pub(crate) fn nameserver(&self) -> &str {
        &self.nameserver
    }

    /// A client of the given name servers.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        client(&self.nameserver)
    }

    /// Runs a command to its end.
    pub(crate) fn block_on<T>(
        command: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
    }

    /// Does `work` with admin calls, then shuts the client down, however it ended.
    pub(crate) async fn with_admin<T>(
        &self,
        work: impl AsyncFnOnce(&Admin) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let client = self.client()?;
        let result = work(&Admin::new(&client)).await;
        client.shutdown().await;
        result
    }
}

/// A client of `nameserver`.
pub(crate) fn client(nameserver: &str) -> anyhow::Result<Client> {
    Ok(Client::start(ClientSettings::new([nameserver]))?)
}
