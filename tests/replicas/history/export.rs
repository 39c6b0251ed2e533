//! Writes a history to a file as JSON lines, which `.ci/history` replays with spec/History.tla:
//! `STACKTOKEN_TEST_HISTORY_DIR` names the folder. Times are in microseconds since the first event.

use std::{fs, path::PathBuf, time::Instant};

use serde_json::{Value, json};
use stacktoken::domain::revision::Revision;

use super::{Answer, Record, TokenHistory};

impl Record {
    /// Writes the history to `NAME.jsonl`, if a folder is named.
    pub fn export(&self, name: &str) {
        let Ok(folder) = std::env::var("STACKTOKEN_TEST_HISTORY_DIR") else {
            return;
        };
        let asked = self.answers.iter().map(|answer| answer.begun);
        let revoked = self.lives.iter().filter_map(|life| life.dying);
        let Some(start) = asked.chain(revoked).min() else {
            return;
        };
        let revokes = self.lives.iter().enumerate();
        let revokes = revokes.filter_map(|(token, life)| revoke(token, life, start));
        let answers = self.answers.iter().map(|answer| line_of(answer, start));
        let lines: Vec<_> = revokes
            .chain(answers)
            .map(|line| line.to_string())
            .collect();
        fs::create_dir_all(&folder).unwrap();
        let file = PathBuf::from(folder).join(format!("{name}.jsonl"));
        fs::write(file, lines.join("\n") + "\n").unwrap();
    }
}

fn micros(at: Instant, start: Instant) -> u64 {
    at.duration_since(start).as_micros().try_into().unwrap()
}

fn position(revision: &str) -> Option<i64> {
    Revision::parse(revision)
        .ok()
        .map(|revision| revision.position)
}

/// When a revoke was first sent and, if it was acknowledged, when and at which position.
fn revoke(token: usize, life: &TokenHistory, start: Instant) -> Option<Value> {
    let dead = life.dead.as_ref();
    Some(json!({
        "event": "revoke",
        "token": token,
        "sent": micros(life.dying?, start),
        "acknowledged": dead.map(|(at, _)| micros(*at, start)),
        "position": dead.and_then(|(_, revision)| position(revision)),
    }))
}

fn line_of(answer: &Answer, start: Instant) -> Value {
    json!({
        "event": "answer",
        "token": answer.token,
        "begun": micros(answer.begun, start),
        "ended": micros(answer.ended, start),
        "active": answer.active,
        "min_revision": answer.min_revision,
        "position": position(&answer.revision),
    })
}
