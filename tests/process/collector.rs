//! Runs a real OpenTelemetry collector as a child process. Its output shows what it has received.

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    program::{ChildGuard, folder},
    support::skips::found_or_skip,
};

/// A span as the collector received it.
#[derive(Clone, Debug, Default)]
pub struct Span {
    pub trace_id: String,
    pub parent_id: String,
    pub id: String,
    pub name: String,
    pub kind: String,
    pub status: String,
    pub state: String,
    pub attributes: BTreeMap<String, String>,
    /// The attributes of the process that sent the span.
    pub resource: BTreeMap<String, String>,
}

pub struct Collector {
    _child: ChildGuard,
    folder: TempDir,
    pub endpoint: String,
}

impl Collector {
    /// Starts the collector. Returns `None` if it is not installed.
    pub fn start() -> Option<Self> {
        let program = found_or_skip(installed(), "rotel (.ci/requirements.txt)")?;
        let folder = folder();
        let (grpc, http) = (free_address(), free_address());
        let output = fs::File::create(folder.path().join("output")).unwrap();
        let child = Command::new(program)
            .args(["start", "--exporter", "blackhole"])
            .args(["--debug-log", "traces", "--debug-log-verbosity", "detailed"])
            .args(["--otlp-grpc-endpoint", &grpc, "--otlp-http-endpoint", &http])
            .stdin(Stdio::null())
            .stderr(output.try_clone().unwrap())
            .stdout(output)
            .spawn()
            .unwrap();
        let collector = Self {
            _child: ChildGuard(child),
            folder,
            endpoint: format!("http://{grpc}"),
        };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&grpc).is_err() {
            assert!(
                Instant::now() < until,
                "the collector did not start: {}",
                collector.text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(collector)
    }

    /// Returns what the collector has printed so far.
    pub fn text(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap()
    }

    pub fn spans(&self) -> Vec<Span> {
        parse(&self.text())
    }

    /// Waits until the collector has received this many spans. Returns all spans that it has
    /// received.
    pub fn await_spans(&self, count: usize) -> Vec<Span> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let spans = self.spans();
            if spans.len() >= count {
                return spans;
            }
            let told = self.text();
            assert!(Instant::now() < until, "fewer than {count} spans: {told}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Returns the program from the Python package that the gate installs.
fn installed() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"));
    let versions = fs::read_dir(target.join("ci-tools/lib")).ok()?;
    versions
        .flatten()
        .map(|version| version.path().join("site-packages/rotel/rotel-agent"))
        .find(|program| program.exists())
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn parse(text: &str) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut resource = BTreeMap::new();
    let mut in_resource = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("ResourceSpans #") {
            resource.clear();
            in_resource = true;
        } else if line.starts_with("Span #") {
            in_resource = false;
            let resource = resource.clone();
            spans.push(Span {
                resource,
                ..Default::default()
            });
        } else if let Some((name, value)) = line
            .strip_prefix("-> ")
            .and_then(|pair| pair.split_once(": "))
        {
            let (name, value) = (name.to_owned(), value.to_owned());
            let into = match spans.last_mut() {
                Some(span) if !in_resource => &mut span.attributes,
                _ => &mut resource,
            };
            assert!(into.insert(name, value).is_none(), "twice: {line}");
        } else if let (Some((name, value)), Some(span)) = (line.split_once(':'), spans.last_mut())
            && !in_resource
        {
            let value = value.trim().to_owned();
            match name.trim() {
                "Trace ID" => span.trace_id = value,
                "Parent ID" => span.parent_id = value,
                "ID" => span.id = value,
                "Name" => span.name = value,
                "Kind" => span.kind = value,
                "TraceState" => span.state = value,
                "Status code" => span.status = value,
                _ => {}
            }
        }
    }
    spans
}
