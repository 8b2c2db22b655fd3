//! The table: every destination, asked by a pod and by the host's network, in every configuration.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use dotfour_datapath::Netns;
use dotfour_e2e::program::Failure;
use dotfour_rig::probe::{Transport, Witness, ask};
use dotfour_rig::{Place, UserRoute};

use crate::columns::{ALL, Column};
use crate::rows::{Answers, Row, Sees, rows};
use crate::world::{World, own};

/// Long enough for any answer that comes at all.
const SOON: Duration = Duration::from_secs(3);
/// How long to wait for what must not come.
const A_WHILE: Duration = Duration::from_millis(250);

/// What a column found: for each row, whom it saw when a pod asked and when the host's network did, and what is wrong.
struct Found {
    rows: Vec<(String, String, String)>,
    wrong: Vec<String>,
}

/// Fails with every cell that is not as it should be. Prints the table, in Markdown.
pub(crate) fn holds(place: &Place) -> Result<(), Failure> {
    let found = thread::scope(|scope| {
        let threads: Vec<_> =
            ALL.iter().enumerate().map(|(number, column)| scope.spawn(move || fill(place, number, column))).collect();
        let found = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())));
        found.collect::<Result<Vec<Found>, Failure>>()
    })?;
    print(&found);
    let wrong: Vec<&str> = found.iter().flat_map(|found| &found.wrong).map(String::as_str).collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("{} cells are wrong:\n  {}", wrong.len(), wrong.join("\n  ")).into())
    }
}

fn print(found: &[Found]) {
    let names: Vec<&str> = ALL.iter().map(|column| column.name).collect();
    println!("| destination | {} | host network |", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len() + 1));
    let count = found.first().map_or(0, |found| found.rows.len());
    for number in 0..count {
        let cells: Vec<_> = found.iter().filter_map(|found| found.rows.get(number)).collect();
        let pods: Vec<&str> = cells.iter().map(|(_, pod, _)| pod.as_str()).collect();
        let mut hosts: Vec<&str> = cells.iter().map(|(_, _, host)| host.as_str()).collect();
        hosts.dedup();
        println!("| {} | {} | {} |", cells[0].0, pods.join(" | "), hosts.join(", "));
    }
}

fn fill(place: &Place, number: usize, column: &Column) -> Result<Found, Failure> {
    let world = World::build(place, column)?;
    let mut found = Found { rows: Vec::new(), wrong: Vec::new() };
    let rows = rows(&world)?;
    let appliance = world.host("appliance")?;
    let witness = Witness::start(appliance.netns())?;
    let mut forced = false;
    for row in &rows {
        if row.forced && !forced {
            let defaults = ["0.0.0.0/0", "::/0"]
                .map(|prefix| prefix.parse().map(|prefix| UserRoute { prefix, next_hop: appliance }));
            let [v4, v6] = defaults;
            world.vnet.set_route_table(&[v4?, v6?])?;
            forced = true;
        }
        let expected = row.pod[number];
        let asking = &world.pods[0];
        let mut cell = |who: &str, netns: &Netns, expected: Sees| -> Result<String, Failure> {
            let mut words = Vec::new();
            for transport in row.transports {
                let seen = whom(&world, row, netns, *transport, expected)?;
                let word = word(&world, row, seen);
                if word != in_words(expected) {
                    let family = if row.at.is_ipv4() { "IPv4" } else { "IPv6" };
                    let wanted = in_words(expected);
                    found.wrong.push(format!(
                        "{}: {who} to {} ({}, {family}, {transport:?}): {word} is seen, not {wanted}",
                        column.name, row.name, row.at
                    ));
                }
                if !words.contains(&word) {
                    words.push(word);
                }
            }
            Ok(words.join(", "))
        };
        let pod = cell("a pod", asking.pod.netns(), expected)?;
        let host = cell("the host's network", world.nodes[0].netns(), row.host)?;
        if row.forced && witness.sources_to(row.at.ip()).is_empty() {
            found.wrong.push(format!("{}: nobody passed the appliance on the way to {}", column.name, row.at));
        }
        let family = if row.at.is_ipv4() { "IPv4" } else { "IPv6" };
        found.rows.push((format!("{}, {family}", row.name), pod, host));
    }
    // The platform's lists are complete: nobody but the nodes themselves was ever seen.
    let mut primaries: BTreeMap<IpAddr, ()> = world.nodes.iter().map(|node| (node.address().into(), ())).collect();
    primaries.insert(world.vm.address().into(), ());
    let asked = [world.vnet.wireserver().asked(), world.vnet.metadata().asked()].concat();
    for stranger in asked.iter().filter(|asker| !primaries.contains_key(asker)) {
        found.wrong.push(format!("{}: Azure's services saw {stranger}", column.name));
    }
    if !found.wrong.is_empty() {
        println!("{}", world.logs());
    }
    Ok(found)
}

/// Whom a destination sees.
fn whom(
    world: &World,
    row: &Row,
    from: &Netns,
    transport: Transport,
    expected: Sees,
) -> Result<Option<IpAddr>, Failure> {
    let timeout = if expected == Sees::Dropped { A_WHILE } else { SOON };
    let asked = || match row.answers {
        Answers::Metadata => world.vnet.metadata().asked(),
        _ => world.vnet.wireserver().asked(),
    };
    if row.answers == Answers::Source {
        return Ok(ask(from, transport, None, row.at, timeout)?.map(|seen| seen.ip()));
    }
    if request(from, row.at, timeout) { Ok(asked().last().copied()) } else { Ok(None) }
}

/// Whether an HTTP server answers, whatever it says.
pub(crate) fn request(from: &Netns, at: SocketAddr, timeout: Duration) -> bool {
    let Ok(Ok(mut stream)) = from.run(|| TcpStream::connect_timeout(&at, timeout)) else { return false };
    let written = stream.set_read_timeout(Some(timeout)).and_then(|()| {
        stream
            .write_all(b"GET /metadata/versions HTTP/1.1\r\nHost: azure\r\nMetadata: true\r\nConnection: close\r\n\r\n")
    });
    written.is_ok() && stream.read(&mut [0; 64]).is_ok_and(|length| length > 0)
}

fn word(world: &World, row: &Row, seen: Option<IpAddr>) -> String {
    match seen {
        None => in_words(Sees::Dropped).to_owned(),
        Some(seen) if seen == world.pods[0].like(seen) => in_words(Sees::Pod).to_owned(),
        Some(seen) if seen == own(&world.nodes[0], seen) => in_words(Sees::Node).to_owned(),
        Some(seen) if seen == row.at.ip() => in_words(Sees::Itself).to_owned(),
        Some(other) => other.to_string(),
    }
}

fn in_words(sees: Sees) -> &'static str {
    match sees {
        Sees::Pod => "pod",
        Sees::Node => "node",
        Sees::Itself => "itself",
        Sees::Dropped => "dropped",
    }
}
