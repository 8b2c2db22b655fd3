//! Metrics with labels whose values are all known beforehand.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// One label set: names and values.
pub(super) type Labels<const N: usize> = [(&'static str, &'static str); N];

/// One metric for each of some label sets. Unlike the library's `Family` it needs neither lock nor hash to find one, shows
/// those that have seen nothing yet (a rate can only be taken from what was there before), and keeps its order.
#[derive(Debug, Clone)]
pub(super) struct Fixed<M, const N: usize> {
    members: Vec<(Labels<N>, M)>,
}

impl<M, const N: usize> Fixed<M, N> {
    pub(super) fn new(labels: impl IntoIterator<Item = Labels<N>>, make: impl Fn() -> M) -> Self {
        Fixed { members: labels.into_iter().map(|labels| (labels, make())).collect() }
    }

    /// The metric of the label set with this number.
    pub(super) fn at(&self, number: usize) -> Option<&M> {
        self.members.get(number).map(|(_, metric)| metric)
    }
}

impl<M: EncodeMetric + TypedMetric, const N: usize> EncodeMetric for Fixed<M, N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.members.iter().try_for_each(|(labels, metric)| metric.encode(encoder.encode_family(labels)?))
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}
