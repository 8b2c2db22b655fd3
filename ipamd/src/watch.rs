//! Listens to the kernel for links that vanish.

use std::sync::mpsc::Sender;

use futures_util::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use tracing::warn;

use crate::keeper::Notice;
use crate::wiring::names::LINK_INDICES;

/// Tells the keeper of every link of ours that vanishes, for as long as the daemon runs. Where events were lost, says so.
pub async fn watch(notices: Sender<Notice>) {
    loop {
        match rtnetlink::new_multicast_connection(&[MulticastGroup::Link]) {
            Ok((connection, _handle, mut messages)) => {
                let connection = tokio::spawn(connection);
                // What happened before this moment went unseen.
                let _ = notices.send(Notice::EventsLost);
                while let Some((message, _)) = messages.next().await {
                    let notice = match message.payload {
                        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => vanished(&link),
                        NetlinkPayload::Overrun(_) => Some(Notice::EventsLost),
                        _ => None,
                    };
                    if notice.is_some_and(|notice| notices.send(notice).is_err()) {
                        connection.abort();
                        return;
                    }
                }
                connection.abort();
            }
            Err(e) => warn!("cannot listen for links: {e}"),
        }
        // The socket fails when its buffer overruns; a new one, and a look at everything, makes up for it.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

fn vanished(link: &LinkMessage) -> Option<Notice> {
    LINK_INDICES.contains(&link.header.index).then_some(Notice::LinkGone(link.header.index))
}
