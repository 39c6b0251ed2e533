//! Measures the table in docs/performance.md. Run it with `cargo bench --bench table`. The server
//! and a bare tonic echo server run in separate processes, and h2load (Debian: nghttp2-client)
//! calls both in turn with the same headers and with messages of the same sizes. Only the ratio of
//! two rows of one run is meaningful. Prints the table as text, and writes it as JSON to the file
//! that `STACKTOKEN_BENCH_JSON` names.
#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement may fail loudly"
)]

#[path = "table/echo.rs"]
mod echo;
#[path = "table/exchange.rs"]
mod exchange;
#[path = "table/load.rs"]
mod load;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/replicas/postgres.rs"]
mod postgres;
#[path = "table/rows.rs"]
mod rows;
#[allow(dead_code, reason = "each measurement needs its part")]
#[path = "support/size.rs"]
mod size;
#[path = "table/store.rs"]
mod store;
#[allow(dead_code, reason = "each measurement needs its part")]
mod support;

use std::{fs, process::ExitCode};

use serde_json::{Value, json};

use load::Run;
use rows::{Row, Table};

const ROUNDS: usize = 5;
/// The maximum memory usage of an idle server, in MiB.
const WANTED_MEMORY: f64 = 40.0;
/// The maximum start time, in milliseconds.
const WANTED_START: f64 = 100.0;

/// The median, minimum and maximum of some values.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut all: Vec<f64> = figures.collect();
        all.sort_by(f64::total_cmp);
        Self {
            median: all[all.len() / 2],
            least: all[0],
            greatest: all[all.len() - 1],
        }
    }

    fn text(self) -> String {
        let Self {
            median,
            least,
            greatest,
        } = self;
        format!("{median:.2} ({least:.2}-{greatest:.2})")
    }

    fn json(self) -> Value {
        json!({"median": self.median, "least": self.least, "greatest": self.greatest})
    }
}

/// The ratios of a row to another row. Each is calculated per round.
struct Ratios {
    rate: Spread,
    p99: Spread,
    cpu: Spread,
}

fn ratios((row, own): (&Row, &[Run]), (other, beside): (&Row, &[Run])) -> Ratios {
    let answers = row.answers as f64 / other.answers as f64;
    let each = |of: fn(Run, Run) -> f64| {
        let pairs = own.iter().zip(beside);
        Spread::of(pairs.map(|(own, beside)| of(*own, *beside)))
    };
    let scaled = |spread: Spread, by: f64| Spread {
        median: spread.median * by,
        least: spread.least * by,
        greatest: spread.greatest * by,
    };
    Ratios {
        rate: scaled(each(|own, beside| own.rate / beside.rate), answers),
        p99: each(|own, beside| own.p99_us / beside.p99_us),
        cpu: scaled(
            each(|own, beside| own.cpu_us / beside.cpu_us),
            1.0 / answers,
        ),
    }
}

/// Returns whether a row meets all of its targets.
fn is_reached(row: &Row, ratios: &Ratios) -> bool {
    let wanted = row.wanted;
    wanted.rate.is_none_or(|least| ratios.rate.median >= least)
        && wanted.p99.is_none_or(|most| ratios.p99.median <= most)
        && wanted.cpu.is_none_or(|most| ratios.cpu.median <= most)
}

/// Measures all rows, one after the other in each round.
fn measure(table: &Table) -> Vec<Vec<Run>> {
    let mut runs = vec![Vec::new(); table.rows.len()];
    for _ in 0..size::rounds(ROUNDS) {
        for (row, runs) in table.rows.iter().zip(&mut runs) {
            let count = || row.counted.map(|name| table.server.metric_or_zero(name));
            let before = count();
            let (asked, run) = row.target.measure();
            if let Some((before, after)) = before.zip(count()) {
                let asked = asked as f64 * row.answers as f64;
                assert!(
                    after - before >= asked,
                    "{}: {} of {asked}",
                    row.name,
                    after - before
                );
            }
            runs.push(run);
        }
    }
    runs
}

/// Returns a row as text and as JSON, and whether it meets its targets.
fn report(rows: &[Row], runs: &[Vec<Run>], index: usize) -> (String, Value, bool) {
    let (row, own) = (&rows[index], &runs[index][..]);
    let rate = Spread::of(own.iter().map(|run| run.rate));
    let p99 = Spread::of(own.iter().map(|run| run.p99_us / 1e3));
    let cpu = Spread::of(own.iter().map(|run| run.cpu_us));
    let line = format!(
        "| {} | {:.0} | {:.2} ms | {:.1} us |",
        row.name, rate.median, p99.median, cpu.median
    );
    let mut json_row = json!({
        "row": row.name, "answers_per_request": row.answers, "requests_per_second": rate.json(),
        "p99_ms": p99.json(), "cpu_us": cpu.json(),
    });
    let Some(beside) = row.beside else {
        return (line + " | | | | |", json_row, true);
    };
    let other = rows.iter().position(|other| other.name == beside).unwrap();
    let ratios = ratios((row, own), (&rows[other], &runs[other]));
    let reached = is_reached(row, &ratios);
    let missed = if reached { "" } else { "missed" };
    let (of_rate, of_p99, of_cpu) = (ratios.rate.text(), ratios.p99.text(), ratios.cpu.text());
    json_row["ratios"] = json!({
        "beside": beside, "answers_per_second": ratios.rate.json(),
        "p99": ratios.p99.json(), "cpu": ratios.cpu.json(), "reached": reached,
    });
    let line = format!("{line} {beside} | {of_rate} | {of_p99} | {of_cpu} | {missed} |");
    (line, json_row, reached)
}

/// Measures and prints the rows that need the store. Returns them as JSON, and whether all of them
/// meet their targets.
async fn report_store(table: &store::StoreTable) -> (Vec<Value>, bool) {
    let mut figures = store::Pair::ALL.map(|pair| (pair, Vec::new()));
    for _ in 0..size::rounds(ROUNDS) {
        for (pair, figures) in &mut figures {
            figures.extend(table.measure(*pair).await);
        }
    }
    println!("\n| row | calls/s | beside | its/s | ratio | |\n|---|---|---|---|---|---|");
    let (mut json_rows, mut all_reached) = (Vec::new(), true);
    for (pair, figures) in figures {
        let [name, beside] = pair.names();
        if figures.is_empty() {
            println!("| {name} | PostgreSQL is not installed | {beside} | | | |");
            continue;
        }
        let own = Spread::of(figures.iter().map(|[own, _]| *own));
        let other = Spread::of(figures.iter().map(|[_, other]| *other));
        let ratio = Spread::of(figures.iter().map(|[own, other]| own / other));
        let reached = ratio.median >= pair.wanted();
        let (rate, others) = (own.median, other.median);
        let missed = if reached { "" } else { "missed" };
        let text = ratio.text();
        println!("| {name} | {rate:.0} | {beside} | {others:.0} | {text} | {missed} |");
        json_rows.push(json!({
            "row": name, "calls_per_second": own.json(), "beside": beside,
            "per_second_of_that": other.json(), "ratio": ratio.json(), "reached": reached,
        }));
        all_reached &= reached;
    }
    (json_rows, all_reached)
}

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(size) = echo::asked_for() {
        echo::serve(size).await;
        return ExitCode::SUCCESS;
    }
    let idle = support::Server::start(&[]);
    let (start_ms, memory_mib) = (idle.took.as_secs_f64() * 1e3, idle.resident_mib());
    drop(idle);
    let table = Table::new().await;
    let runs = tokio::task::block_in_place(|| measure(&table));
    println!("| row | requests/s | p99 | CPU | beside | requests/s | p99 | CPU | |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let (mut json_rows, mut all_reached) = (Vec::new(), true);
    for index in 0..table.rows.len() {
        let (line, json_row, reached) = report(&table.rows, &runs, index);
        println!("{line}");
        json_rows.push(json_row);
        all_reached &= reached;
    }
    drop(table);
    let (store_rows, reached) = report_store(&store::StoreTable::new().await).await;
    json_rows.extend(store_rows);
    all_reached &= reached;
    println!("start {start_ms:.0} ms, memory when idle {memory_mib:.1} MiB");
    all_reached &= start_ms <= WANTED_START && memory_mib <= WANTED_MEMORY;
    let json = json!({"rows": json_rows, "start_ms": start_ms, "idle_mib": memory_mib});
    if let Some(path) = std::env::var_os("STACKTOKEN_BENCH_JSON") {
        fs::write(path, format!("{json:#}\n")).unwrap();
    }
    size::judge(all_reached)
}
