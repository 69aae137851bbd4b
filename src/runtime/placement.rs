//! Which core does what.

#![forbid(unsafe_code)]

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
    /// Shares out the given cores.
    ///
    /// A hop between cores costs more than it saves while there is no core for the log thread
    /// beside them, so one or two cores carry one executor with both actors. With three, one has
    /// the order actor and two have fronts; from four on the last core is left to the log
    /// thread, the checkpoints and the kernel's share of the network.
    pub fn new(cores: &[usize]) -> Placement {
        let shared = |core| Place {
            core,
            front: Some(FrontId(0)),
            order: true,
        };
        let order = |core| Place {
            core,
            front: None,
            order: true,
        };
        let fronts = |cores: &[usize]| -> Vec<Place> {
            let numbered = (0..).zip(cores);
            numbered
                .map(|(number, core)| Place {
                    core: *core,
                    front: Some(FrontId(number)),
                    order: false,
                })
                .collect()
        };
        match cores {
            [] => Placement {
                places: vec![shared(0)],
                helpers: Vec::new(),
            },
            [first] | [first, _] => Placement {
                places: vec![shared(*first)],
                helpers: cores.to_vec(),
            },
            [first, rest @ .., last] => {
                let few = cores.len() == 3;
                let mut places = vec![order(*first)];
                places.extend(fronts(if few { &cores[1..] } else { rest }));
                Placement {
                    places,
                    helpers: if few { cores.to_vec() } else { vec![*last] },
                }
            }
        }
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
        for count in 1..=64 {
            let cores: Vec<usize> = (0..count).collect();
            let placement = Placement::new(&cores);
            let orders = placement.places.iter().filter(|p| p.order).count();
            assert_eq!(orders, 1, "{count}");
            assert!(placement.fronts() >= 1, "{count}");
            assert!(placement.places.len() <= count, "{count}");
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
}
