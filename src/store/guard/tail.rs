//! Reads the ends of the journals: the last changes that each replica knows to be committed. They
//! are younger than its mark, which is renewed once a second.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead as _},
};

use super::{
    journal::JOURNAL,
    line::Line,
    mark::{GuardFile, Row},
    place::Place,
    seal::Seal,
};

/// How many bytes are read of each journal.
const MOST: u64 = 64 << 10;

/// Returns the rows of the last changes that were committed in this epoch, for each replica.
pub(super) fn rows(place: &dyn Place, seal: &Seal, of: GuardFile) -> io::Result<Vec<Row>> {
    let mut last = BTreeMap::new();
    for name in place.names()? {
        let Some(rest) = name.strip_prefix(JOURNAL) else {
            continue;
        };
        // The names are sorted, so the last file of a replica stays.
        let replica = rest.split('-').next().unwrap_or_default().to_owned();
        last.insert(replica, name);
    }
    let mut rows = Vec::new();
    for name in last.values() {
        if belongs(place, seal, name)? == Some(of) {
            rows.extend(committed(seal, &place.tail(name, MOST)?, name));
        }
    }
    Ok(rows)
}

/// Returns to which guard and to which epoch a file belongs.
fn belongs(place: &dyn Place, seal: &Seal, name: &str) -> io::Result<Option<GuardFile>> {
    let mut first = String::new();
    place.open(name)?.read_line(&mut first)?;
    let line = first.strip_suffix('\n');
    let line = line.and_then(|line| seal.chain(name).read(line));
    Ok(line.and_then(|line| match line {
        Line::Of(of) => Some(of),
        _ => None,
    }))
}

/// Returns the newest row of the changes at the end of a file that were committed. A line that is
/// damaged ends them.
fn committed(seal: &Seal, bytes: &[u8], name: &str) -> Option<Row> {
    let text = String::from_utf8_lossy(bytes);
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut lines = complete.split('\n');
    let is_whole = (bytes.len() as u64) < MOST;
    let mut chain = if is_whole {
        seal.chain(name)
    } else {
        // The first line is probably cut. The code of the second one begins the chain.
        lines.next();
        seal.resume_after(lines.next()?)?
    };
    let mut open: HashMap<String, Row> = HashMap::new();
    let mut newest = None;
    for line in lines {
        match chain.read(line) {
            Some(Line::Intent(intent)) => {
                let row = (intent.position, intent.at);
                let known = open.entry(intent.change).or_insert(row);
                *known = row.max(*known);
            }
            Some(Line::Outcome { change, committed }) => {
                let row = open.remove(&change);
                newest = newest.max(row.filter(|_| committed));
            }
            Some(Line::Of(_)) => {}
            None => break,
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::store::guard::{
        GuardLocation,
        line::{Effect, Intent},
    };

    const OF: GuardFile = GuardFile { guard: 1, epoch: 2 };

    fn intent(position: i64) -> Line {
        Line::Intent(Intent {
            change: position.to_string(),
            at: position * 10,
            position,
            stack: Uuid::from_u128(1),
            token: None,
            kind: "removed".to_owned(),
            effect: Effect::Members,
        })
    }

    fn outcome(position: i64, committed: bool) -> Line {
        Line::Outcome {
            change: position.to_string(),
            committed,
        }
    }

    /// Writes journals, of which each is a name and its lines, and reads their ends.
    fn rows_of(journals: &[(&str, Vec<Line>)]) -> Vec<Row> {
        let folder = tempfile::tempdir().unwrap();
        let place = GuardLocation::Directory(folder.path().into()).place("test");
        let seal = Seal::new(Some(b"k"));
        for (name, lines) in journals {
            let (mut text, mut chain) = (String::new(), seal.chain(name));
            for line in lines {
                chain.write(&mut text, line);
            }
            place.begin(name).unwrap().append(text.as_bytes()).unwrap();
        }
        rows(&*place, &seal, OF).unwrap()
    }

    #[test]
    fn the_last_committed_change_of_each_replica_is_known_without_its_mark() {
        let first = vec![Line::Of(OF), intent(5), outcome(5, true), intent(6)];
        let second = vec![
            Line::Of(OF),
            intent(7),
            outcome(7, true),
            intent(8),
            outcome(8, false),
        ];
        let former = GuardFile { epoch: 1, ..OF };
        let third = vec![Line::Of(former), intent(9), outcome(9, true)];
        let rows = rows_of(&[
            ("journal-a-000001.log", first),
            ("journal-b-000001.log", second),
            ("journal-c-000001.log", third),
        ]);
        assert_eq!(
            rows,
            [(5, 50), (7, 70)],
            "not 9, which is of a former epoch"
        );
    }

    #[test]
    fn the_end_of_a_long_journal_is_found() {
        let mut lines = vec![Line::Of(OF)];
        for number in 1..=2_000 {
            lines.extend([intent(number), outcome(number, true)]);
        }
        let rows = rows_of(&[("journal-a-000001.log", lines)]);
        assert_eq!(rows, [(2_000, 20_000)]);
    }
}
