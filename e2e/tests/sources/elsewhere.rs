//! A responder in a process of its own, for more connections than one process may have descriptors for both ends of.

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use dotfour_datapath::Netns;
use dotfour_e2e::program::Failure;
use dotfour_rig::probe::Responder;

/// Tells this program that it is such a process, and where it is to listen.
const AT: &str = "DOTFOUR_SOURCES_RESPOND_AT";

/// The process. Ends when dropped.
pub(crate) struct Elsewhere {
    stdin: Option<ChildStdin>,
    child: Child,
}

impl Elsewhere {
    /// Starts one in a namespace. What connects before it listens is refused.
    pub(crate) fn start(netns: &Netns, at: SocketAddr) -> Result<Self, Failure> {
        let this = std::env::current_exe()?;
        let start = || {
            let mut command = Command::new(this);
            command.env(AT, at.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        };
        let mut child = netns.run(start)??;
        let stdin = child.stdin.take();
        // It says one byte when it listens.
        child.stdout.take().ok_or("no output")?.read_exact(&mut [0])?;
        Ok(Elsewhere { stdin, child })
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// Is the process, if this is it, until its standard input ends.
pub(crate) fn serve_as_responder() -> Option<ExitCode> {
    let at = std::env::var(AT).ok()?.parse().ok()?;
    let serve = || -> Result<(), Failure> {
        let _responder = Responder::start(&Netns::current()?, &[at], &[])?;
        println!("!");
        std::io::stdin().read_to_end(&mut Vec::new())?;
        Ok(())
    };
    Some(serve().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
}
