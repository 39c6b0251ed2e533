//! A cluster of three Patroni nodes in synchronous mode.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    etcd::Etcd,
    process::{Folder, Program, children, free_port, http, postgres_bin, send},
    proxy::{Link, Proxy},
};

pub struct Patroni {
    pub etcd: Etcd,
    pub nodes: Vec<Node>,
    folder: PathBuf,
}

pub struct Node {
    pub name: String,
    pub port: u16,
    /// The port of Patroni's REST API, which HAProxy polls.
    pub rest_port: u16,
    data: PathBuf,
    configuration: PathBuf,
    /// Proxies to the members of etcd.
    links: Vec<Proxy>,
    program: Option<Program>,
}

impl Patroni {
    pub async fn start(folder: &Folder) -> Self {
        let etcd = Etcd::start(folder).await;
        let mut nodes = Vec::new();
        for at in 0..3 {
            nodes.push(Node::new(folder, at, &etcd.ports()).await);
        }
        let mut patroni = Self {
            etcd,
            nodes,
            folder: folder.path().to_owned(),
        };
        for at in 0..3 {
            patroni.nodes[at].launch(folder);
            // The first node initializes the cluster, then the other nodes copy it.
            let until = Instant::now() + Duration::from_secs(60);
            while at == 0 && !patroni.nodes[0].leads() {
                assert!(Instant::now() < until, "Patroni has no leader");
                sleep(Duration::from_millis(200)).await;
            }
        }
        patroni.wait_until_whole(folder).await;
        patroni
    }

    /// Returns the node that is the leader according to Patroni's own health check.
    pub fn leader(&self) -> usize {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(at) = (0..3).find(|at| self.nodes[*at].leads()) {
                return at;
            }
            assert!(Instant::now() < until, "no node leads");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Returns whether a node other than this one leads.
    pub fn leads_besides(&self, former: usize) -> bool {
        let mut others = (0..3).filter(|at| *at != former);
        others.any(|at| self.nodes[at].leads())
    }

    /// Returns the synchronous standby. Patroni may promote this node, because it has every
    /// acknowledged change.
    pub fn synchronous(&self) -> Option<usize> {
        let is = |node: &Node| http(node.rest_port, "GET", "/sync", "");
        (0..3).find(|at| is(&self.nodes[*at]).is_some_and(|(status, _)| status == 200))
    }

    /// Waits until one node leads and two nodes follow it, one of them synchronously.
    pub async fn wait_until_whole(&mut self, folder: &Folder) {
        let until = Instant::now() + Duration::from_secs(120);
        let mut restart_at = Some(Instant::now() + Duration::from_secs(40));
        let mut since = None;
        loop {
            since = match self.is_whole() {
                true => Some(since.unwrap_or_else(Instant::now)),
                false => None,
            };
            // The cluster must stay whole for a while, because Patroni may not have noticed a fault
            // yet.
            if since.is_some_and(|at: Instant| at.elapsed() > Duration::from_secs(2)) {
                return;
            }
            assert!(Instant::now() < until, "{}", self.state());
            // Patroni 3.0.2 can permanently fail to assign a synchronous standby ("key updated by
            // someone else"). A restart of Patroni helps, and PostgreSQL keeps running during it.
            if restart_at.is_some_and(|at| Instant::now() > at) {
                restart_at = None;
                let leader = self.leader();
                println!("restarting Patroni of node{leader}");
                self.nodes[leader].kill_patroni();
                self.nodes[leader].restart_patroni(folder);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn is_whole(&self) -> bool {
        let leads = self.nodes.iter().filter(|node| node.leads()).count() == 1;
        leads && self.synchronous().is_some() && {
            let members = self.members();
            members.len() == 3
                && members.iter().all(|member| {
                    let running =
                        ["running", "streaming"].contains(&member["state"].as_str().unwrap_or(""));
                    let lag = member["lag"].as_u64();
                    running && (member["role"] == "leader" || lag.is_some_and(|lag| lag < 1 << 20))
                })
        }
    }

    fn members(&self) -> Vec<Value> {
        let asked = self.nodes.iter().filter(|node| node.leads());
        let found = asked.filter_map(|node| http(node.rest_port, "GET", "/cluster", ""));
        let parsed = found.filter_map(|(_, text)| serde_json::from_str::<Value>(&text).ok());
        let members = parsed.map(|found| found["members"].as_array().cloned());
        members.flatten().next().unwrap_or_default()
    }

    fn state(&self) -> String {
        let logs = self.nodes.iter().map(|node| {
            let path = self.folder.join(format!("{}.log", node.name));
            let text = fs::read_to_string(path).unwrap_or_default();
            let tail: Vec<_> = text.lines().rev().take(15).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            format!("{}:\n{}\n", node.name, tail.join("\n"))
        });
        format!(
            "the cluster is incomplete: {:?}\n{}",
            self.members(),
            logs.collect::<String>()
        )
    }
}

impl Node {
    async fn new(folder: &Folder, at: usize, etcd: &[u16]) -> Self {
        let mut links = Vec::new();
        for port in etcd {
            links.push(Proxy::start(*port).await);
        }
        let name = format!("node{at}");
        let data = folder.path().join(format!("{name}-data"));
        let (port, rest_port) = (free_port(), free_port());
        let hosts: Vec<_> = links
            .iter()
            .map(|link| format!("127.0.0.1:{}", link.port))
            .collect();
        let text = CONFIGURATION
            .replace("NAME", &name)
            .replace("REST", &rest_port.to_string())
            .replace("PORT", &port.to_string())
            .replace("DATA", data.to_str().unwrap())
            .replace("BIN", postgres_bin().to_str().unwrap())
            .replace("FOLDER", folder.path().to_str().unwrap())
            .replace("HOSTS", &hosts.join(","));
        let configuration = folder.write(&format!("{name}.yml"), &text);
        Self {
            name,
            port,
            rest_port,
            data,
            configuration,
            links,
            program: None,
        }
    }

    fn launch(&mut self, folder: &Folder) {
        let file = self.configuration.to_str().unwrap();
        self.program = Some(Program::start(folder, &self.name, "patroni", &[file]));
    }

    fn leads(&self) -> bool {
        http(self.rest_port, "GET", "/primary", "").is_some_and(|(status, _)| status == 200)
    }

    fn postmaster(&self) -> Option<i32> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    /// Sends a signal to all processes of PostgreSQL. The postmaster gets it first, so that it
    /// cannot start another process that would miss the signal.
    pub fn signal_postgres(&self, signal: Signal) {
        let Some(postmaster) = self.postmaster() else {
            return;
        };
        send(postmaster, signal);
        if signal != Signal::KILL {
            children(postmaster)
                .into_iter()
                .for_each(|pid| send(pid, signal));
        }
    }

    pub fn signal_patroni(&self, signal: Signal) {
        self.program.as_ref().unwrap().signal(signal);
    }

    /// Kills Patroni; PostgreSQL keeps running.
    pub fn kill_patroni(&mut self) {
        let program = self.program.take().unwrap();
        children(i32::try_from(program.id()).unwrap())
            .into_iter()
            .filter(|pid| Some(*pid) != self.postmaster())
            .for_each(|pid| send(pid, Signal::KILL));
        program.signal(Signal::KILL);
    }

    pub fn restart_patroni(&mut self, folder: &Folder) {
        self.launch(folder);
    }

    /// Sets the state of the links to etcd.
    pub fn etcd_links(&self, link: Link) {
        self.links.iter().for_each(|to| to.set(link));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.program.is_some() {
            self.signal_patroni(Signal::CONT);
        }
        self.program = None;
        self.signal_postgres(Signal::CONT);
        if let Some(postmaster) = self.postmaster() {
            send(postmaster, Signal::QUIT);
            let until = Instant::now() + Duration::from_secs(5);
            let alive = || fs::exists(format!("/proc/{postmaster}")).unwrap_or(false);
            while alive() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// The Patroni configuration from docs/operations.md, but with short timeouts, so that a run takes
/// only minutes.
const CONFIGURATION: &str = "\
scope: tokens
name: NAME
restapi:
  listen: 127.0.0.1:REST
  connect_address: 127.0.0.1:REST
etcd3:
  hosts: HOSTS
  use_proxies: true
bootstrap:
  dcs:
    ttl: 10
    loop_wait: 1
    retry_timeout: 3
    synchronous_mode: true
    synchronous_mode_strict: true
    postgresql:
      use_pg_rewind: true
      parameters:
        wal_log_hints: 'on'
        max_connections: 200
  initdb:
    - encoding: UTF8
    - locale: C
postgresql:
  listen: 127.0.0.1:PORT
  connect_address: 127.0.0.1:PORT
  data_dir: DATA
  bin_dir: BIN
  pgpass: FOLDER/NAME.pgpass
  authentication:
    superuser:
      username: postgres
      password: postgres
    replication:
      username: replicator
      password: replicator
  parameters:
    unix_socket_directories: FOLDER
  pg_hba:
    - host all all 127.0.0.1/32 trust
    - local all all trust
    - host replication all 127.0.0.1/32 trust
";
