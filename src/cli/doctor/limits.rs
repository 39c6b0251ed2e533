//! Limits of the operating system against those of the settings.

use super::{Serve, codes::Code, finding::Findings};
use crate::server;

pub fn check(serve: &Serve, findings: &mut Findings) {
    let ports = 1 + usize::from(serve.listen.http_listen.is_some());
    let short = server::shortage_of_open_files(&serve.tuning, ports);
    if let Some((files, connections, needed)) = short {
        let problem = format!(
            "the limit of open files is {files}, which allows {connections} connections, and \
             --max-connections is {}",
            serve.tuning.max_connections
        );
        let fix = format!(
            "`ulimit -n {needed}`, in a systemd unit `LimitNOFILE={needed}`; or set \
             --max-connections {connections}"
        );
        findings.add(Code::LimitsOpenFiles, problem, fix);
    }
}
