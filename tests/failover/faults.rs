//! The faults that are injected into the cluster.

use std::{fmt, time::Duration};

use rustix::process::Signal;
use tokio::time::sleep;

use crate::{
    patroni::Patroni,
    process::{Folder, http},
    proxy::Link,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Switchover,
    PostgresKilled,
    PatroniKilled,
    PrimaryPaused,
    PrimaryCutFromEtcd,
    StandbyKilled,
    EtcdLeaderKilled,
}

impl Fault {
    pub const ALL: [Self; 7] = [
        Self::Switchover,
        Self::PostgresKilled,
        Self::PatroniKilled,
        Self::PrimaryPaused,
        Self::PrimaryCutFromEtcd,
        Self::StandbyKilled,
        Self::EtcdLeaderKilled,
    ];

    /// Injects the fault, and ends it after a while.
    pub async fn inject(self, patroni: &mut Patroni, folder: &Folder, leader: usize) {
        match self {
            Self::Switchover => switch_over(patroni, leader),
            Self::PostgresKilled => patroni.nodes[leader].signal_postgres(Signal::KILL),
            Self::PatroniKilled => {
                patroni.nodes[leader].kill_patroni();
                // The node's PostgreSQL still runs, without a fence, while another node is
                // promoted.
                until_moved(patroni, leader).await;
                sleep(Duration::from_secs(6)).await;
                patroni.nodes[leader].restart_patroni(folder);
            }
            Self::PrimaryPaused => {
                let node = &patroni.nodes[leader];
                node.signal_patroni(Signal::STOP);
                node.signal_postgres(Signal::STOP);
                until_moved(patroni, leader).await;
                sleep(Duration::from_secs(3)).await;
                let node = &patroni.nodes[leader];
                // PostgreSQL continues before Patroni does, so it can briefly answer as the former
                // primary.
                node.signal_postgres(Signal::CONT);
                sleep(Duration::from_secs(2)).await;
                node.signal_patroni(Signal::CONT);
            }
            Self::PrimaryCutFromEtcd => {
                patroni.nodes[leader].etcd_links(Link::Cut);
                until_moved(patroni, leader).await;
                sleep(Duration::from_secs(3)).await;
                patroni.nodes[leader].etcd_links(Link::Up);
            }
            Self::StandbyKilled => {
                let standby = patroni.synchronous().expect("a synchronous standby");
                patroni.nodes[standby].signal_postgres(Signal::KILL);
            }
            Self::EtcdLeaderKilled => {
                let killed = patroni.etcd.kill_leader();
                sleep(Duration::from_secs(4)).await;
                patroni.etcd.restart(folder, killed);
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Switchover => "switchover",
            Self::PostgresKilled => "PostgreSQL of the primary killed",
            Self::PatroniKilled => "Patroni killed, PostgreSQL still runs",
            Self::PrimaryPaused => "primary paused, then resumed",
            Self::PrimaryCutFromEtcd => "primary cut off from etcd",
            Self::StandbyKilled => "synchronous standby killed",
            Self::EtcdLeaderKilled => "etcd leader killed",
        })
    }
}

fn switch_over(patroni: &Patroni, leader: usize) {
    let candidate = patroni.synchronous().expect("a synchronous standby");
    let body = format!(
        "{{\"leader\": \"{}\", \"candidate\": \"{}\"}}",
        patroni.nodes[leader].name, patroni.nodes[candidate].name
    );
    let asked = http(
        patroni.nodes[leader].rest_port,
        "POST",
        "/switchover",
        &body,
    );
    // Patroni responds only after the switchover, which may take longer than the timeout of the
    // request.
    if let Some((status, text)) = asked {
        assert!([200, 202].contains(&status), "{status} {text}");
    }
}

/// Waits until a node other than `from` leads.
async fn until_moved(patroni: &Patroni, from: usize) {
    for _ in 0..600 {
        if patroni.leads_besides(from) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("no other node was promoted");
}
