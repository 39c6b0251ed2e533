//! A cluster of three etcd members on loopback.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::process::{Folder, Program, free_port, http};

pub struct Etcd {
    members: Vec<Member>,
    cluster: String,
}

struct Member {
    name: String,
    port: u16,
    peer_port: u16,
    program: Option<Program>,
}

impl Etcd {
    pub async fn start(folder: &Folder) -> Self {
        let members: Vec<_> = (0..3)
            .map(|at| Member {
                name: format!("etcd{at}"),
                port: free_port(),
                peer_port: free_port(),
                program: None,
            })
            .collect();
        let cluster: Vec<_> = members
            .iter()
            .map(|member| format!("{}=http://127.0.0.1:{}", member.name, member.peer_port))
            .collect();
        let cluster = cluster.join(",");
        let mut etcd = Self { members, cluster };
        for at in 0..3 {
            etcd.launch(folder, at);
        }
        let until = Instant::now() + Duration::from_secs(30);
        while etcd.leader().is_none() {
            assert!(Instant::now() < until, "etcd has no leader");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        etcd
    }

    pub fn ports(&self) -> Vec<u16> {
        self.members.iter().map(|member| member.port).collect()
    }

    fn launch(&mut self, folder: &Folder, at: usize) {
        let member = &mut self.members[at];
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (client, peer) = (url(member.port), url(member.peer_port));
        let data = folder.make(&member.name);
        let arguments = [
            ("--name", member.name.as_str()),
            ("--data-dir", data.to_str().unwrap()),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &self.cluster),
            ("--initial-cluster-state", "new"),
            ("--heartbeat-interval", "100"),
            ("--election-timeout", "1000"),
        ];
        let arguments: Vec<_> = arguments.iter().flat_map(|(k, v)| [*k, *v]).collect();
        member.program = Some(Program::start(folder, &member.name, "etcd", &arguments));
    }

    /// Returns the index of the member that leads.
    fn leader(&self) -> Option<usize> {
        (0..3).find(|at| {
            let metrics = http(self.members[*at].port, "GET", "/metrics", "");
            metrics.is_some_and(|(_, text)| text.contains("\netcd_server_is_leader 1"))
        })
    }

    /// Kills the leader and returns its index.
    pub fn kill_leader(&mut self) -> usize {
        let leader = self.leader().expect("etcd has a leader");
        let program = self.members[leader].program.take().unwrap();
        program.signal(Signal::KILL);
        leader
    }

    /// Restarts a member that was killed.
    pub fn restart(&mut self, folder: &Folder, at: usize) {
        self.launch(folder, at);
    }
}
