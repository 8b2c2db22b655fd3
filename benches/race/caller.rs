//! One call of one contestant.

use dotfour_rig::runtime::{Answer, CallError, Calls};
use dotfour_rig::{Pod, Runtime};
use serde_json::Value;

use crate::contestant::{Contestant, Kind};
use crate::descriptors;
use crate::error::RaceError;
use crate::floor::{Kernel, Shared, WiredPod};
use crate::samples::Sample;

/// Calls a contestant from inside its node's namespace, as a runtime does.
#[derive(Debug)]
pub(crate) struct Caller<'a> {
    contestant: &'a Contestant,
    calls: &'a Calls<'a>,
    kernel: Option<Kernel<'a>>,
}

/// What an ADD left, which its DEL needs.
#[derive(Debug)]
pub(crate) struct Attached {
    result: Value,
    wired: Option<WiredPod>,
}

impl<'a> Caller<'a> {
    /// Runs `work` with a caller, on a thread of its own.
    pub(crate) fn enter<T: Send>(
        contestant: &Contestant,
        shared: &Shared,
        work: impl FnOnce(&mut Caller<'_>) -> Result<T, RaceError> + Send,
    ) -> Result<T, RaceError> {
        Runtime::new(&contestant.node, &contestant.network)
            .enter(|calls| {
                descriptors::leave_behind().map_err(RaceError::system("close inherited descriptors"))?;
                let kernel = (contestant.kind == Kind::Floor)
                    .then(|| Kernel::open(shared, contestant.node.address()))
                    .transpose()?;
                work(&mut Caller { contestant, calls, kernel })
            })
            .map_err(RaceError::system("enter a node's namespace"))
            .flatten()
    }

    /// ADD. The sample's processor time is only what this thread itself was charged with: [`crate::cpu`] has the rest.
    pub(crate) fn add(&mut self, pod: &Pod) -> Result<(Attached, Sample), RaceError> {
        let Answer { result, took } = self.calls.add(pod).map_err(|e| self.failed(e))?;
        let mut sample = Sample { took, ..Sample::default() };
        let wired = match &mut self.kernel {
            Some(kernel) => {
                let (wired, work) = kernel.wire(pod)?;
                sample = Sample { took: sample.took + work.took, cpu: work.cpu };
                Some(wired)
            }
            None => None,
        };
        Ok((Attached { result, wired }, sample))
    }

    /// Does what is left to do after an ADD, and belongs to no call's time.
    pub(crate) fn tidy(&mut self, attached: &Attached) -> Result<(), RaceError> {
        match (&mut self.kernel, &attached.wired) {
            (Some(kernel), Some(wired)) => kernel.tidy(wired),
            _ => Ok(()),
        }
    }

    /// DEL, likewise.
    pub(crate) fn del(&mut self, pod: &Pod, attached: &Attached) -> Result<Sample, RaceError> {
        let result = (!attached.result.is_null()).then_some(&attached.result);
        let Answer { took, .. } = self.calls.del(pod, result).map_err(|e| self.failed(e))?;
        let mut sample = Sample { took, ..Sample::default() };
        if let (Some(kernel), Some(wired)) = (&mut self.kernel, &attached.wired) {
            let work = kernel.unwire(wired)?;
            sample = Sample { took: sample.took + work.took, cpu: work.cpu };
        }
        Ok(sample)
    }

    /// Does what is left to do after a DEL, and belongs to no call's time.
    pub(crate) fn bury(&mut self, attached: &Attached) -> Result<(), RaceError> {
        match (&mut self.kernel, &attached.wired) {
            (Some(kernel), Some(wired)) => kernel.bury(wired),
            _ => Ok(()),
        }
    }

    fn failed(&self, source: CallError) -> RaceError {
        RaceError::Call { name: self.contestant.name, source }
    }
}
