//! Listens to the kernel for links that vanish.
//!
//! A thread of its own that blocks: it sleeps for hours, and no pod that comes wakes it.

use std::io;
use std::sync::mpsc::{SendError, Sender};
use std::thread;
use std::time::Duration;

use dotfour_datapath::{Departure, Departures};
use tracing::warn;

use crate::keeper::Notice;
use crate::wiring::names::LINK_INDICES;

/// How long to wait before listening again where that failed, and after events were missed: a look at everything should
/// not come more often.
const PAUSE: Duration = Duration::from_millis(200);

/// Starts telling the keeper of every link of ours that vanishes in the calling thread's namespace, and where events were
/// missed, of that. The thread ends when there is no keeper any more and a link vanishes, or with the process.
pub fn start(notices: Sender<Notice>) -> io::Result<()> {
    let departures = Departures::listen()?;
    thread::Builder::new().name("watch".into()).spawn(move || {
        // What happened before this moment went unseen.
        let _ = notices.send(Notice::EventsLost).and_then(|()| listen(departures, &notices));
    })?;
    Ok(())
}

/// Returns once nobody wants to know any more.
fn listen(mut departures: Departures, notices: &Sender<Notice>) -> Result<(), SendError<Notice>> {
    loop {
        match departures.wait() {
            Ok(Departure::Link(index)) if LINK_INDICES.contains(&index) => notices.send(Notice::LinkGone(index))?,
            Ok(Departure::Link(_)) => {}
            Ok(Departure::Missed) => {
                thread::sleep(PAUSE);
                notices.send(Notice::EventsLost)?;
            }
            Err(e) => {
                warn!("cannot listen for links that vanish: {e}");
                thread::sleep(PAUSE);
                notices.send(Notice::EventsLost)?;
            }
        }
    }
}
