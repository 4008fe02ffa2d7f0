//! Label values: closed sets, written as the API and the protocol write them
//! (docs/decisions/123-metric-labels.md).

use std::hash::Hash;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;

/// A label value whose possible values are known.
pub(crate) trait ClosedSet: Sized + Copy + 'static {
    const ALL: &'static [Self];
}

/// Defines an enum whose variants are the values of a label.
macro_rules! closed_set {
    ($(#[$about:meta])* $visible:vis enum $name:ident { $($(#[$doc:meta])* $value:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelValue)]
        $visible enum $name { $($(#[$doc])* $value,)* }

        impl $crate::metrics::ClosedSet for $name {
            const ALL: &'static [Self] = &[$(Self::$value,)*];
        }
    };
}
pub(crate) use closed_set;

/// Returns the family for the registry, with a metric for each value of a label, so that the rate of what
/// never happened is zero and not unknown.
pub(crate) fn with_all_labels<V: ClosedSet, L, M>(
    family: &Family<L, M>,
    labels: impl Fn(V) -> L,
) -> Family<L, M>
where
    L: Clone + Hash + Eq + EncodeLabelSet,
    M: Default,
{
    with_labels(family, V::ALL.iter().map(|value| labels(*value)))
}

/// Returns the family for the registry, with a metric for each of these labels.
pub(crate) fn with_labels<L, M>(family: &Family<L, M>, labels: impl IntoIterator<Item = L>) -> Family<L, M>
where
    L: Clone + Hash + Eq + EncodeLabelSet,
    M: Default,
{
    labels.into_iter().for_each(|labels| drop(family.get_or_create(&labels)));
    family.clone()
}

/// Returns all pairs of values of two labels.
pub(crate) fn pairs<A: ClosedSet, B: ClosedSet>() -> impl Iterator<Item = (A, B)> {
    A::ALL.iter().flat_map(|one| B::ALL.iter().map(move |other| (*one, *other)))
}

closed_set! {
    /// The result of a call, or of a pass over everything.
    pub(crate) enum CallResult {
        Done,
        /// It is repeated.
        Failed,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ResultLabels {
    pub(crate) result: CallResult,
}
