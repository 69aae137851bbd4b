//! The row about `/metrics`: puts while somebody reads it all the time, and puts while nobody does.

#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::heavy::Heavy;
use super::result::{Row, Unit};
use super::turns::in_turns;
use crate::report::{grouped, time};

/// Puts on each server.
const WRITES: u64 = 1_000_000;

/// Between two scrapes: a hundred times as often as a Prometheus does that is in a hurry.
const PAUSE: Duration = Duration::from_millis(50);

impl Heavy<'_> {
    /// Puts beside scrapes of the metrics.
    pub fn scraped(&self) -> Vec<Row> {
        let mut puts = Row::new("scraped-put", "unscraped", Unit::Rate, Some(0.95));
        puts.note = format!(
            "puts 50x32 while /metrics is read every {} ms, {} of them, and as many on a server \
             where nobody reads it, in turns",
            PAUSE.as_millis(),
            grouped(WRITES as f64)
        );
        self.rounds([puts], |round| {
            let (server, plain) = self.pair()?;
            let over = AtomicBool::new(false);
            let (rates, scrapes) = std::thread::scope(|scope| {
                let scraper = scope.spawn(|| scrape(server.address, &over));
                let rates = in_turns(&server, &plain, WRITES);
                over.store(true, Ordering::Relaxed);
                (rates, scraper.join())
            });
            let scrapes = scrapes.map_err(|_| "the scraper panicked")??;
            let rates = rates?;
            let median = scrapes.get(scrapes.len() / 2).copied().unwrap_or_default();
            let slowest = scrapes.last().copied().unwrap_or_default();
            eprintln!(
                "scraped  round {round}: {}/s with {} scrapes, {}/s without; a scrape takes {}, \
                 at most {}",
                grouped(rates.0),
                scrapes.len(),
                grouped(rates.1),
                time(median),
                time(slowest),
            );
            Ok([rates])
        })
    }
}

/// Reads the metrics until the end; what each time took, in nanoseconds, in order.
fn scrape(address: SocketAddr, over: &AtomicBool) -> Result<Vec<u64>, String> {
    let mut took = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let text = fetch(address).map_err(|error| format!("/metrics: {error}"))?;
        took.push(began.elapsed().as_nanos() as u64);
        if !text.contains("\netcd_server_has_leader 1\n") {
            return Err("/metrics does not tell what it should".into());
        }
        std::thread::sleep(PAUSE);
    }
    took.sort_unstable();
    Ok(took)
}

fn fetch(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: quoin\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
