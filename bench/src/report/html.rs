//! The result as one page that needs nothing else: no network, no other file.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::chart::{Chart, Series, escape, linear_ticks, log_ticks};
use super::{Outcome, digits, grouped, time};

/// The result as a page.
pub fn render(outcome: &Outcome) -> String {
    let setting = |name: &str| {
        outcome
            .settings
            .iter()
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value)
    };
    let title = format!("{} on {}", setting("workload"), setting("target"));
    let mut page = String::new();
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>{title}</h1><p>{about}</p></header>\n",
        title = escape(&title),
        about = escape(&format!(
            "{} connections, each {} in flight, {} loop; {} UTC",
            setting("connections"),
            setting("in flight"),
            setting("loop"),
            date(outcome.started())
        )),
    );
    cards(outcome, &mut page);
    page.push_str(&throughput(outcome).render());
    page.push_str(&latency_over_time(outcome).render());
    page.push_str(&percentiles(outcome).render());
    tables(outcome, &mut page);
    let _ = write!(
        page,
        "<div id=\"tip\" hidden></div>\n<script>{SCRIPT}</script>\n"
    );
    page.push_str("</body>\n</html>\n");
    page
}

fn cards(outcome: &Outcome, page: &mut String) {
    page.push_str("<section class=\"cards\">");
    let mut card = |name: &str, value: String, class: &str| {
        let _ = write!(
            page,
            "<div class=\"card {class}\"><b>{}</b><span>{name}</span></div>",
            escape(&value)
        );
    };
    let rate = format!("{} per second", outcome.noun);
    card(&rate, grouped(outcome.throughput), "");
    for (percentile, name) in [
        (50.0, "median"),
        (99.0, "p99"),
        (99.9, "p99.9"),
        (100.0, "max"),
    ] {
        card(name, time(outcome.percentile(percentile)), "");
    }
    let class = if outcome.failed() > 0 { "bad" } else { "" };
    card("failed", grouped(outcome.failed() as f64), class);
    page.push_str("</section>\n");
}

fn seconds_axis(outcome: &Outcome) -> (Vec<(f64, String)>, (f64, f64)) {
    let last = outcome.intervals.last().map_or(1.0, |interval| interval.at);
    let mut ticks = linear_ticks(last.max(0.001));
    ticks.retain(|tick| *tick <= last);
    let texts = ticks
        .iter()
        .map(|tick| (*tick, format!("{} s", short(*tick))))
        .collect();
    (texts, (0.0, last))
}

fn throughput(outcome: &Outcome) -> Chart {
    let points: Vec<(f64, f64)> = outcome
        .intervals
        .iter()
        .map(|one| (one.at, one.rate))
        .collect();
    let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
    let ticks = linear_ticks(most);
    let (x_ticks, x_range) = seconds_axis(outcome);
    Chart {
        id: "throughput",
        title: "Throughput over time, per second",
        series: vec![Series {
            name: "throughput",
            colour: 1,
            points,
        }],
        x_ticks,
        x_range,
        x_label: "seconds of the measured part",
        y_range: (0.0, ticks.last().copied().unwrap_or(1.0)),
        y_ticks: ticks
            .into_iter()
            .map(|tick| (tick, grouped_short(tick)))
            .collect(),
        y_log: false,
        tip: |x, y, _| format!("{x:.1} s: {}/s", grouped(y)),
    }
}

fn latency_over_time(outcome: &Outcome) -> Chart {
    // An interval without an answer has no latency: the line passes over it.
    let points = |of: fn(&crate::record::Interval) -> u64| {
        outcome
            .intervals
            .iter()
            .filter(|one| of(one) > 0)
            .map(|one| (one.at, of(one) as f64))
            .collect::<Vec<_>>()
    };
    let series = vec![
        Series {
            name: "p99",
            colour: 2,
            points: points(|one| one.p99),
        },
        Series {
            name: "median",
            colour: 1,
            points: points(|one| one.p50),
        },
    ];
    let (x_ticks, x_range) = seconds_axis(outcome);
    let (y_ticks, y_range) = latency_axis(&series);
    Chart {
        id: "latency",
        title: "Latency over time",
        series,
        x_ticks,
        x_range,
        x_label: "seconds of the measured part",
        y_ticks,
        y_range,
        y_log: true,
        tip: |x, y, name| format!("{x:.1} s, {name}: {}", time(y as u64)),
    }
}

fn latency_axis(series: &[Series]) -> (Vec<(f64, String)>, (f64, f64)) {
    let values = || {
        series
            .iter()
            .flat_map(|one| &one.points)
            .map(|point| point.1)
    };
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(0.0, f64::max);
    let low = if low.is_finite() {
        low.max(100.0)
    } else {
        1000.0
    };
    let ticks = log_ticks(low, high.max(low * 2.0));
    let range = (ticks[0], ticks[ticks.len() - 1]);
    let texts = ticks
        .iter()
        .map(|tick| {
            (
                *tick,
                time(*tick as u64).replace(".00", "").replace(".0 ", " "),
            )
        })
        .collect();
    (texts, range)
}

/// Where a percentile stands on the axis: each further nine as far as the first.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).max(1e-7).log10()
}

fn percentiles(outcome: &Outcome) -> Chart {
    // The last nine that the number of requests can tell from the maximum.
    let most = (outcome.requests.max(10) as f64).log10();
    let points: Vec<(f64, f64)> = outcome
        .curve
        .iter()
        .filter(|(percentile, _)| *percentile < 100.0)
        .map(|(percentile, latency)| (nines(*percentile).min(most), *latency as f64))
        .chain([(most, outcome.percentile(100.0) as f64)])
        .collect();
    let series = vec![Series {
        name: "latency",
        colour: 1,
        points,
    }];
    let (y_ticks, y_range) = latency_axis(&series);
    let marks = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999];
    let x_ticks = marks
        .into_iter()
        .filter(|mark| nines(*mark) <= most)
        .map(|mark| (nines(mark), format!("{mark} %")))
        .collect();
    Chart {
        id: "percentiles",
        title: "Latency by percentile",
        series,
        x_ticks,
        x_range: (0.0, most),
        x_label: "share that was at least as fast",
        y_ticks,
        y_range,
        y_log: true,
        tip: |x, y, _| {
            let share = 100.0 - 100.0 * 10f64.powf(-x);
            format!("{share:.4} %: {}", time(y as u64))
        },
    }
}

fn tables(outcome: &Outcome, page: &mut String) {
    page.push_str("<section class=\"tables\"><table><caption>Latency</caption>");
    let row = |page: &mut String, name: &str, value: &str| {
        let _ = write!(
            page,
            "<tr><th>{}</th><td>{}</td></tr>",
            escape(name),
            escape(value)
        );
    };
    for (percentile, latency) in &outcome.percentiles {
        let name = match *percentile {
            100.0 => "max".to_string(),
            other => format!("p{other}"),
        };
        row(page, &name, &time(*latency));
    }
    row(page, "mean", &time(outcome.mean as u64));
    page.push_str("</table><table><caption>Counts</caption>");
    row(page, outcome.noun, &grouped(outcome.good as f64));
    row(page, "measured", &format!("{:.1} s", outcome.seconds));
    if outcome.rate.is_some() {
        row(page, "due but not sent", &grouped(outcome.unsent as f64));
    }
    row(page, "failed", &grouped(outcome.failed() as f64));
    for (failure, count) in &outcome.errors {
        row(page, failure, &grouped(*count as f64));
    }
    for (name, value) in &outcome.beside {
        row(page, &format!("beside: {name}"), value);
    }
    page.push_str("</table><table><caption>Settings</caption>");
    for (name, value) in &outcome.settings {
        row(page, name, value);
    }
    page.push_str("</table></section>\n");
}

fn grouped_short(value: f64) -> String {
    match value {
        1e6.. => format!("{} M", short(value / 1e6)),
        1e3.. => format!("{} k", short(value / 1e3)),
        _ => short(value),
    }
}

/// A number without needless zeros.
fn short(value: f64) -> String {
    if value.fract().abs() < 1e-9 {
        format!("{value:.0}")
    } else {
        digits(value)
    }
}

/// Seconds since 1970 as year-month-day hour:minute.
fn date(seconds: u64) -> String {
    // Days since 1 March of the year 0, so that leap days end the year (Hinnant, "civil").
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!(
        "{}-{month:02}-{day:02} {hour:02}:{minute:02}",
        era * 400 + year + carry
    )
}

const STYLE: &str = "
:root{--bg:#fbfbfa;--fg:#1d2226;--soft:#667079;--line:#dfe2e4;--card:#fff;--c1:#2463b4;--c2:#c2571a;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--bg:#15181b;--fg:#e6e9eb;--soft:#98a2aa;--line:#30363b;--card:#1d2125;--c1:#6ea8f0;--c2:#f0995c;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:940px;padding:28px 24px 48px;background:var(--bg);color:var(--fg);font:15px/1.45 system-ui,sans-serif}
h1{font-size:24px;margin:0}header p{margin:2px 0 20px;color:var(--soft)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:10px;margin-bottom:26px}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.card b{display:block;font-size:21px;font-weight:600;font-variant-numeric:tabular-nums;white-space:nowrap}
.card span{color:var(--soft);font-size:13px}.card.bad b{color:var(--bad)}
figure{margin:0 0 24px}figcaption{font-weight:600;margin-bottom:4px}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:12px;font-variant-numeric:tabular-nums}
svg .y{text-anchor:end}svg .x{text-anchor:middle}
.grid{stroke:var(--line)}.axis{stroke:var(--soft)}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}
.line.c1{stroke:var(--c1)}.line.c2{stroke:var(--c2)}
.hover line{stroke:var(--soft);stroke-dasharray:3 3}
.hover .c1{fill:var(--c1)}.hover .c2{fill:var(--c2)}
.key{font-weight:400;font-size:13px;margin-left:12px;color:var(--soft)}
.key::before{content:'';display:inline-block;width:14px;height:3px;margin-right:5px;vertical-align:middle;background:var(--c1)}
.key.c2::before{background:var(--c2)}
.tables{display:flex;flex-wrap:wrap;gap:36px;align-items:flex-start}
table{border-collapse:collapse;font-size:14px}caption{text-align:left;font-weight:600;padding-bottom:4px}
th{text-align:left;font-weight:400;color:var(--soft);padding:3px 18px 3px 0}
td{text-align:right;font-variant-numeric:tabular-nums}tr{border-top:1px solid var(--line)}
#tip{position:fixed;pointer-events:none;background:var(--card);border:1px solid var(--line);border-radius:6px;padding:5px 9px;font-size:13px;white-space:pre;box-shadow:0 2px 8px #0003}
";

/// Shows the nearest point of each line under the pointer.
const SCRIPT: &str = "
const tip=document.getElementById('tip');
for(const svg of document.querySelectorAll('figure svg')){
 const lines=[...svg.querySelectorAll('desc')].map(d=>({c:d.getAttribute('class'),p:JSON.parse(d.textContent)}));
 const hover=svg.querySelector('.hover');
 svg.addEventListener('pointermove',e=>{
  const box=svg.getBoundingClientRect(),x=(e.clientX-box.left)*880/box.width;
  let text=[],marks='';
  for(const l of lines){
   if(!l.p.length)continue;
   const n=l.p.reduce((a,b)=>Math.abs(b[0]-x)<Math.abs(a[0]-x)?b:a);
   if(!marks)marks+=`<line x1='${n[0]}' x2='${n[0]}' y1='12' y2='222'/>`;
   marks+=`<circle class='${l.c}' cx='${n[0]}' cy='${n[1]}' r='4'/>`;text.push(n[2]);
  }
  hover.innerHTML=marks;tip.textContent=text.join('\\n');tip.hidden=!text.length;
  const left=e.clientX+14+tip.offsetWidth>innerWidth?e.clientX-14-tip.offsetWidth:e.clientX+14;
  tip.style.left=left+'px';tip.style.top=(e.clientY+14)+'px';
 });
 svg.addEventListener('pointerleave',()=>{hover.innerHTML='';tip.hidden=true;});
}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_else() {
        let page = render(&super::super::tests::sample());
        for outside in [
            "http:", "https:", "src=", "href=", "@import", "url(", "fetch(", "//",
        ] {
            assert!(!page.contains(outside), "the page refers to {outside}");
        }
        assert_eq!(page.matches("<svg").count(), 3);
        for tag in [
            "html", "head", "body", "figure", "svg", "table", "section", "style", "script",
        ] {
            assert_eq!(
                page.matches(&format!("</{tag}>")).count(),
                page.matches(&format!("<{tag}>")).count()
                    + page.matches(&format!("<{tag} ")).count(),
                "unbalanced {tag}"
            );
        }
        assert!(page.contains("&lt;b&gt;&amp;&quot;quoin&quot;") && !page.contains("<b>&\"quoin"));
    }

    #[test]
    fn a_run_without_any_answer_still_has_a_page() {
        let mut empty = super::super::tests::sample();
        (empty.curve, empty.intervals, empty.requests) = (Vec::new(), Vec::new(), 0);
        empty
            .percentiles
            .iter_mut()
            .for_each(|(_, latency)| *latency = 0);
        let page = render(&empty);
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(1_709_210_096), "2024-02-29 12:34");
        assert_eq!(date(1_735_689_599), "2024-12-31 23:59");
    }
}
