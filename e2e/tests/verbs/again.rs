//! Without a runtime, in the manner of cnitool: somebody makes namespaces by hand and keeps them.

use std::time::{Duration, Instant};

use dotfour_e2e::program::{self, Failure};
use dotfour_rig::runtime::Calls;
use dotfour_rig::{Place, Pod, Runtime};

use crate::Outcome;
use crate::stage::Stage;

const ROUNDS: usize = 100;
/// Namespaces that go through all rounds side by side, so that the janitor is always busy with the links of some round
/// before: what it deletes in the very moment in which an ADD looks at it has been taken for somebody else's.
const NAMESPACES: usize = 8;
/// Short, for there are more rounds than addresses.
const COOLDOWN: Duration = Duration::from_millis(100);

pub(crate) fn at_once(place: &Place) -> Outcome {
    let mut config = program::daemon()?;
    config.cooldown = COOLDOWN;
    let stage = Stage::set(place, 250, &config)?;
    let network = stage.network()?;
    let pods: Result<Vec<_>, _> =
        (0..NAMESPACES).map(|number| Pod::create(&stage.node, "default", &format!("by-hand-{number}"))).collect();
    let mut pods: Vec<_> =
        pods?.into_iter().map(|pod| (pod.container_id.clone(), pod)).map(std::sync::Mutex::new).collect();
    let began = Instant::now();
    let outcomes = Runtime::new(&stage.node, &network).in_parallel(NAMESPACES, &pods, |calls, slot| {
        let mut slot = slot.lock().map_err(|_| "a caller panicked")?;
        let (own_id, pod) = &mut *slot;
        rounds(&stage, calls, own_id, pod)
    })?;
    outcomes.into_iter().collect::<Outcome>()?;
    println!(
        "again: {ROUNDS} times ADD, ping, DEL in each of {NAMESPACES} namespaces at once in {:.2?}",
        began.elapsed()
    );
    stage.is_empty()?;
    for slot in &mut pods {
        let (_, pod) = slot.get_mut().map_err(|_| "a caller panicked")?;
        assert_eq!(pod.links()?.len(), 1, "the loopback link is what remains");
    }
    Ok(())
}

fn rounds(stage: &Stage, calls: &Calls<'_>, own_id: &str, pod: &mut Pod) -> Outcome {
    let other_id: String = own_id.chars().rev().collect();
    for round in 0..ROUNDS {
        let failed = |e: Failure| -> Failure { format!("round {round}: {e}").into() };
        // The same container twice, then another one in the same namespace.
        pod.container_id = if round % 3 == 2 { other_id.clone() } else { own_id.to_owned() };
        let answer = calls.add(pod).map_err(|e| failed(e.into()))?;
        stage.reaches(answer.ipv4().ok_or("no address")?).map_err(failed)?;
        let up = pod.links()?.iter().filter(|link| link.up && link.name != "lo").count();
        assert_eq!(up, 1, "round {round}: the interface of the round before is still in use");
        calls.del(pod, Some(&answer.result)).map_err(|e| failed(e.into()))?;
    }
    Ok(())
}
