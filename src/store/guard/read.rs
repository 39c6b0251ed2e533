//! Reads the journals of all replicas, from beginning to end, without keeping them in memory.

use std::{
    collections::HashMap,
    io::{self, BufRead as _},
};

use super::{
    journal::JOURNAL,
    line::{Intent, Line},
    place::Place,
    seal::Seal,
};

/// What the journals contain.
#[derive(Default)]
pub(super) struct Contents {
    /// Transactions that were about to be committed, and of which nothing else is known.
    pub unknown: Vec<Intent>,
    /// The number of lines that count.
    pub lines: u64,
    /// Where a line does not count, as `FILE:LINE`. What follows it in the file does not count
    /// either.
    pub damaged: Vec<String>,
}

/// Reads all journals of this guard. Calls `committed` for each effect of a transaction that was committed.
pub(super) fn read(
    place: &dyn Place,
    (seal, guard): (&Seal, i64),
    mut committed: impl FnMut(&Intent),
) -> io::Result<Contents> {
    let mut contents = Contents::default();
    let mut open: HashMap<String, Vec<Intent>> = HashMap::new();
    let names = place.names()?.into_iter();
    for name in names.filter(|name| name.starts_with(JOURNAL)) {
        let mut is_other = false;
        read_file(place, seal, &name, &mut contents, |line| match line {
            Line::Of(of) => is_other = of.guard != guard,
            _ if is_other => {}
            Line::Intent(intent) => {
                let others = open.entry(intent.change.clone()).or_default();
                others.push(intent);
            }
            Line::Outcome {
                change,
                committed: is_committed,
            } => {
                let intents = open.remove(&change).unwrap_or_default();
                if is_committed {
                    intents.iter().for_each(&mut committed);
                }
            }
        })?;
    }
    contents.unknown = open.into_values().flatten().collect();
    contents
        .unknown
        .sort_by_key(|intent| (intent.at, intent.position));
    Ok(contents)
}

fn read_file(
    place: &dyn Place,
    seal: &Seal,
    name: &str,
    contents: &mut Contents,
    mut each: impl FnMut(Line),
) -> io::Result<()> {
    let mut file = place.open(name)?;
    let mut chain = seal.chain(name);
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        file.read_until(b'\n', &mut bytes)?;
        // A line without its end is what a crash leaves. It was never acknowledged.
        let Some(line) = bytes.strip_suffix(b"\n") else {
            break;
        };
        let line = std::str::from_utf8(line).ok();
        let Some(line) = line.and_then(|line| chain.read(line)) else {
            contents.damaged.push(format!("{name}:{number}"));
            break;
        };
        contents.lines += 1;
        each(line);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::{
        domain::clock::{Clock as _, SystemClock},
        store::guard::{
            GuardLocation,
            fold::Fold,
            journal::Journal,
            line::{Effect, Intent},
        },
    };

    fn intent(number: u64, change: &str) -> Line {
        Line::Intent(Intent {
            change: change.to_owned(),
            at: number.cast_signed(),
            position: number.cast_signed(),
            stack: Uuid::from_u128(u128::from(number % 100)),
            token: Some(Uuid::from_u128(u128::from(number))),
            kind: "expired".to_owned(),
            effect: Effect::Expired,
        })
    }

    /// Writes this many changes, of which each third is rolled back and each third is unknown.
    async fn write(place: &Arc<dyn Place>, seal: &Arc<Seal>, changes: u64) {
        let clock = Arc::new(SystemClock::new());
        let named = "a".to_owned();
        let journal = Journal::start(place.clone(), seal.clone(), named, clock).unwrap();
        for number in 0..changes {
            let change = format!("a-{number}");
            let outcome = |committed| Line::Outcome {
                change: change.clone(),
                committed,
            };
            let mut lines = vec![intent(number, &change)];
            match number % 3 {
                0 => lines.push(outcome(true)),
                1 => lines.push(outcome(false)),
                _ => {}
            }
            journal.append(lines, false);
            if number % 50_000 == 49_999 {
                journal.append(Vec::new(), true).unwrap().await.unwrap();
            }
        }
        journal.close().await;
        assert_eq!(journal.stats().lost, 0);
    }

    /// `STACKTOKEN_TEST_LINES` at compile time is the number of changes, 3,000 by default.
    #[tokio::test]
    async fn only_what_was_committed_counts_and_a_journal_of_any_length_is_read() {
        let set = option_env!("STACKTOKEN_TEST_LINES");
        let changes = set.map_or(3_000, |set| set.parse().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let place = GuardLocation::Directory(folder.path().into()).place("a");
        let (place, seal): (Arc<dyn Place>, _) = (place.into(), Arc::new(Seal::new(None)));
        write(&place, &seal, changes).await;
        let clock = SystemClock::new();
        let (began, mut fold) = (clock.monotonic(), Fold::default());
        let contents = read(&*place, (&*seal, 0), |intent| fold.add(intent)).unwrap();
        eprintln!(
            "{} lines in {:?}",
            contents.lines,
            clock.monotonic().saturating_sub(began)
        );
        assert!(contents.damaged.is_empty());
        assert_eq!(contents.unknown.len() as u64, changes / 3);
        let tokens = fold.stacks.values().map(|stack| stack.tokens.len() as u64);
        assert_eq!(tokens.sum::<u64>(), changes.div_ceil(3));
    }
}
