//! Which core does what.

#![forbid(unsafe_code)]

use crate::limits;
use crate::node::messages::FrontId;

/// One executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it is pinned.
    pub core: usize,
    /// The front that runs there.
    pub front: Option<FrontId>,
    /// The order actor runs there.
    pub order: bool,
}

/// Who runs where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The executors; exactly one of them has the order actor.
    pub places: Vec<Place>,
    /// Where the log, the checkpoints and the rest may run.
    pub helpers: Vec<usize>,
}

impl Placement {
    /// Shares out the given cores; there must be one.
    ///
    /// A hop between cores costs more than it saves while there is no core for the log thread
    /// beside them, so one or two cores carry one executor with both actors; the second is for
    /// the log thread, the checkpoints and the kernel. With three, one has the order actor and two
    /// have fronts; from four on the last core is left to the helpers.
    ///
    /// `fronts` overrides their number: 0 is one executor for both actors; more than there are
    /// cores share them.
    pub fn new(cores: &[usize], fronts: Option<u16>) -> Placement {
        assert!(!cores.is_empty(), "a process runs on some core");
        let fronts = fronts.unwrap_or(match cores.len() {
            1 | 2 => 0,
            3 => 2,
            count => u16::try_from(count - 2).unwrap_or(limits::FRONTS_MAX),
        });
        let fronts = fronts.min(limits::FRONTS_MAX);
        let (first, rest) = (cores[0], &cores[1..]);
        if fronts == 0 {
            return Placement {
                places: vec![Place {
                    core: first,
                    front: Some(FrontId(0)),
                    order: true,
                }],
                helpers: if rest.is_empty() { cores } else { rest }.to_vec(),
            };
        }
        let order = Place {
            core: first,
            front: None,
            order: true,
        };
        let for_fronts = if rest.is_empty() { cores } else { rest };
        let fronts = for_fronts.iter().cycle().zip((0..fronts).map(FrontId));
        let places = fronts.map(|(core, id)| Place {
            core: *core,
            front: Some(id),
            order: false,
        });
        let places: Vec<Place> = std::iter::once(order).chain(places).collect();
        let idle = |core: &&usize| places.iter().all(|place| place.core != **core);
        let helpers: Vec<usize> = cores.iter().filter(idle).copied().collect();
        Placement {
            places,
            helpers: if helpers.is_empty() {
                cores.to_vec()
            } else {
                helpers
            },
        }
    }

    /// Whether an executor shares its core with no other thread of ours.
    pub fn is_alone(&self, place: &Place) -> bool {
        let there = self.places.iter().filter(|p| p.core == place.core).count();
        there == 1 && !self.helpers.contains(&place.core)
    }

    /// How many fronts there are.
    pub fn fronts(&self) -> usize {
        self.places
            .iter()
            .filter(|place| place.front.is_some())
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::Placement;

    #[test]
    fn every_size_of_machine_has_one_order_and_some_fronts() {
        for (count, asked) in (1..=64).flat_map(|n| [(n, None), (n, Some(0)), (n, Some(3))]) {
            let cores: Vec<usize> = (0..count).collect();
            let placement = Placement::new(&cores, asked);
            let orders = placement.places.iter().filter(|p| p.order).count();
            assert_eq!(orders, 1, "{count}");
            assert!(placement.fronts() >= 1, "{count}");
            assert!(
                asked.is_some() || placement.places.len() <= count,
                "{count}"
            );
            assert!(!placement.helpers.is_empty(), "{count}");
            let mut numbers: Vec<u16> = placement
                .places
                .iter()
                .filter_map(|p| p.front)
                .map(|f| f.0)
                .collect();
            numbers.sort_unstable();
            let expected: Vec<u16> = (0..placement.fronts() as u16).collect();
            assert_eq!(numbers, expected, "{count}");
        }
    }

    #[test]
    fn an_executor_is_alone_where_the_helpers_have_another_core() {
        let alone = |cores: &[usize], fronts| {
            let placement = Placement::new(cores, fronts);
            let alone = placement.places.iter().map(|p| placement.is_alone(p));
            alone.collect::<Vec<_>>()
        };
        assert_eq!(alone(&[0], None), [false]);
        assert_eq!(alone(&[0, 1], None), [true]);
        assert_eq!(alone(&[0, 1, 2], None), [false, false, false]);
        assert_eq!(alone(&[0, 1, 2, 3], None), [true, true, true]);
    }
}
