//! When requests are sent: one after the other (closed loop), or at a rate whatever the server
//! does (open loop).
//!
//! In an open loop every request has an intended send time, and its latency counts from there.
//! A server that stalls makes later requests late; a tool that counted from the moment it got
//! round to sending them would leave exactly those out ("coordinated omission").
//!
//! Times are nanoseconds since the start of the run.

#![forbid(unsafe_code)]

/// The schedule of one worker.
#[derive(Debug)]
pub struct Pace {
    /// Nanoseconds between intended sends; `None` in a closed loop.
    interval: Option<f64>,
    /// Requests handed out in the open loop, warm-up included.
    issued: u64,
    /// Requests that may still start in the measured time.
    left: u64,
    /// The end of the warm-up.
    warm: u64,
    /// Nothing starts at or after this time.
    end: u64,
}

impl Pace {
    /// A schedule that starts at 0, is measured from `warm` on, and ends at `end` or after
    /// `total` measured requests; `rate` is in requests per second.
    pub fn new(rate: Option<f64>, warm: u64, end: Option<u64>, total: Option<u64>) -> Pace {
        Pace {
            interval: rate.map(|rate| 1e9 / rate),
            issued: 0,
            left: total.unwrap_or(u64::MAX),
            warm,
            end: end.unwrap_or(u64::MAX),
        }
    }

    /// The time from which a request sent now counts, if one may be sent now.
    pub fn take(&mut self, now: u64) -> Option<u64> {
        let start = self.next_due(now)?;
        if start > now || now >= self.end {
            return None;
        }
        self.issued += 1;
        if start >= self.warm {
            self.left -= 1;
        }
        Some(start)
    }

    /// When the next request is due: `now` in a closed loop; `None` if no more will come.
    pub fn next_due(&self, now: u64) -> Option<u64> {
        let due = match self.interval {
            None => now,
            Some(interval) => (self.issued as f64 * interval) as u64,
        };
        (due < self.end && self.left > 0).then_some(due)
    }

    /// Whether all requests have been handed out, or the time is over.
    pub fn over(&self, now: u64) -> bool {
        now >= self.end || self.next_due(now).is_none()
    }

    /// The intended times, up to `now`, of measured requests that were due but never sent.
    pub fn unsent(&mut self, now: u64) -> impl Iterator<Item = u64> + '_ {
        std::iter::from_fn(move || {
            self.interval?;
            loop {
                let due = self.next_due(now).filter(|due| *due <= now)?;
                self.issued += 1;
                if due >= self.warm {
                    self.left -= 1;
                    return Some(due);
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_loop_sends_whenever_asked() {
        let mut pace = Pace::new(None, 10, Some(100), None);
        assert_eq!(pace.take(0), Some(0));
        assert_eq!(pace.take(99), Some(99));
        assert_eq!(pace.take(100), None);
        assert!(pace.over(100) && !pace.over(99));
        assert_eq!(pace.unsent(1000).count(), 0);
    }

    #[test]
    fn a_total_counts_measured_requests_only() {
        let mut pace = Pace::new(None, 10, None, Some(2));
        assert_eq!(pace.take(5), Some(5));
        assert_eq!(pace.take(10), Some(10));
        assert_eq!(pace.take(11), Some(11));
        assert_eq!(pace.take(12), None);
        assert!(pace.over(12));
    }

    #[test]
    fn an_open_loop_keeps_its_intended_times_through_a_stall() {
        // One request per millisecond.
        let ms = 1_000_000;
        let mut pace = Pace::new(Some(1000.0), 0, Some(10 * ms), None);
        assert_eq!(pace.take(0), Some(0));
        assert_eq!(pace.take(ms / 2), None);
        assert_eq!(pace.next_due(ms / 2), Some(ms));
        // The server stalls until 5 ms: the requests due meanwhile keep their times.
        let late: Vec<u64> = std::iter::from_fn(|| pace.take(5 * ms)).collect();
        assert_eq!(late, [ms, 2 * ms, 3 * ms, 4 * ms, 5 * ms]);
        // It stalls again past the end: what was due is counted, not forgotten.
        assert_eq!(pace.take(12 * ms), None);
        let unsent: Vec<u64> = pace.unsent(12 * ms).collect();
        assert_eq!(unsent, [6 * ms, 7 * ms, 8 * ms, 9 * ms]);
        assert!(pace.over(12 * ms));
    }

    #[test]
    fn warm_up_requests_that_were_never_sent_do_not_count() {
        let ms = 1_000_000;
        let mut pace = Pace::new(Some(1000.0), 3 * ms, Some(5 * ms), None);
        assert_eq!(pace.unsent(5 * ms).collect::<Vec<_>>(), [3 * ms, 4 * ms]);
    }
}
