//! The results of a run, printed as a table.

use std::{fmt, time::Duration};

use crate::{faults::Fault, load::Outage, observer::ObservedAnswer};

pub struct Row {
    pub fault: Fault,
    /// The leader before and after the fault.
    pub moved: (usize, usize),
    pub outage: Outage,
    pub seen: Vec<(&'static str, bool, ObservedAnswer)>,
}

#[derive(Default)]
pub struct Report {
    pub rows: Vec<Row>,
    /// The numbers of issues and of revokes that were acknowledged.
    pub acknowledged: (usize, usize),
    /// How many acknowledged issues and revokes are missing from the database.
    pub lost: (usize, usize),
}

impl Row {
    /// Returns how long replicas whose route follows the primary still refused calls after the
    /// database accepted writes.
    fn recovery(&self) -> Duration {
        let following = self.seen.iter().filter(|(_, follows, _)| *follows);
        let recoveries = following.map(|(.., seen)| seen.recovery(self.outage.accepts_at));
        recoveries.max().unwrap_or_default()
    }

    fn sum(&self, count: impl Fn(&ObservedAnswer) -> usize) -> usize {
        self.seen.iter().map(|(.., seen)| count(seen)).sum()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = self.moved;
        let refused = self.sum(|seen| seen.refused.values().sum());
        write!(
            f,
            "| {} | {from} → {to} | {:.1} s | {} | {refused} | {} | {} | {} | {:.1} s |",
            self.fault,
            self.outage.lasted.as_secs_f64(),
            self.sum(|seen| seen.answers),
            self.sum(|seen| seen.stale),
            self.sum(|seen| seen.wrong),
            self.sum(|seen| seen.not_known_yet),
            self.recovery().as_secs_f64(),
        )?;
        for (name, _, seen) in self
            .seen
            .iter()
            .filter(|(.., seen)| seen.stale + seen.wrong > 0)
        {
            write!(f, "\n  {name}: {seen:?}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| fault | primary | no write for | answers | refused | active beyond the bound \
             | live reported inactive | not known yet | recovery |\n|---|---|---|---|---|---|---|---|---|"
        )?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        let ((issues, revokes), (lost_issues, lost_revokes)) = (self.acknowledged, self.lost);
        writeln!(
            f,
            "{issues} issues and {revokes} revokes acknowledged, {lost_issues} and {lost_revokes} lost"
        )
    }
}

impl Report {
    pub fn assert_right(&self, recovery: Duration) {
        assert_eq!(self.lost, (0, 0), "acknowledged changes were lost");
        for row in &self.rows {
            row.seen.iter().for_each(|(.., seen)| seen.assert_right());
            assert!(row.recovery() <= recovery, "{row}");
        }
    }
}
