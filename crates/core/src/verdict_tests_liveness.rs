//! Tests whether a presented secret is active, and which reason is reported if several apply.

use super::*;

type Blow = (Reason, fn(&mut Facts));

/// The causes that make a token inactive, highest precedence first.
const BLOWS: &[Blow] = &[
    (Reason::Revoked, |facts| facts.token.revoked = true),
    (Reason::Superseded, |facts| facts.token.superseded = true),
    (Reason::Superseded, |facts| {
        facts.token.ends_at = Some(at(NOW));
    }),
    (Reason::Expired, |facts| {
        facts.token.expires_at = Some(at(NOW));
    }),
    (Reason::Revoked, |facts| facts.stack.removed = true),
    (Reason::StackSuspended, |facts| facts.stack.suspended = true),
];

fn facts() -> Facts {
    live(&unnarrowed(Access::ReadWrite))
}

fn judged(facts: &Facts) -> Verdict {
    evaluate(&BUILTIN, Some(facts), KEY, &[ask("entry.read")], at(NOW))
}

#[test]
fn the_first_reason_for_being_inactive_is_reported() {
    for set in 1_u32..1 << BLOWS.len() {
        let mut facts = facts();
        let struck = BLOWS
            .iter()
            .enumerate()
            .filter(|(at, _)| set & (1 << at) != 0);
        let mut first_reason = None;
        for (_, (reason, strike)) in struck {
            strike(&mut facts);
            first_reason.get_or_insert(*reason);
        }
        let expected = Verdict::Inactive(first_reason.unwrap());
        assert_eq!(judged(&facts), expected, "causes {set:05b}");
        assert_eq!(expected.reason(), first_reason);
    }
}

#[test]
fn expired_means_at_or_before_now() {
    for (expires_at, live) in [(NOW - 1, false), (NOW, false), (NOW + 1, true)] {
        let mut facts = facts();
        facts.token.expires_at = Some(at(expires_at));
        let expected = if live { None } else { Some(Reason::Expired) };
        assert_eq!(judged(&facts).reason(), expected, "{expires_at}");
    }
}

#[test]
fn secret_is_superseded_from_the_end_of_its_overlap_on() {
    for (ends_at, live) in [(NOW - 1, false), (NOW, false), (NOW + 1, true)] {
        let mut facts = facts();
        facts.token.ends_at = Some(at(ends_at));
        let expected = if live { None } else { Some(Reason::Superseded) };
        assert_eq!(judged(&facts).reason(), expected, "{ends_at}");
    }
}

#[test]
fn an_ended_token_stays_expired_even_with_a_later_expiry() {
    for expires_at in [None, Some(at(NOW + 1))] {
        let mut facts = facts();
        facts.token.ended = true;
        facts.token.expires_at = expires_at;
        assert_eq!(judged(&facts), Verdict::Inactive(Reason::Expired));
    }
}

#[test]
fn unknown_secret_and_wrong_stack_key_are_the_same_answer() {
    let asked = [ask("entry.read")];
    let unknown = evaluate(&BUILTIN, None, KEY, &asked, at(NOW));
    assert_eq!(unknown, Verdict::NotRecognized);
    assert_eq!(unknown.reason(), Some(Reason::NotRecognized));
    for key in ["", "blt", "blt00c0ffee00c0ffe", "BLT00C0FFEE00C0FFEE"] {
        let wrong = evaluate(&BUILTIN, Some(&facts()), key, &asked, at(NOW));
        assert_eq!(wrong, unknown, "{key:?}");
    }
}

#[test]
fn wrong_stack_key_learns_nothing_of_a_dead_token() {
    for (reason, strike) in BLOWS {
        let mut facts = facts();
        strike(&mut facts);
        let verdict = evaluate(&BUILTIN, Some(&facts), "blt0000000000000000", &[], at(NOW));
        assert_eq!(verdict, Verdict::NotRecognized, "{reason:?}");
    }
}

#[test]
fn live_token_without_a_question_is_active_without_a_reason() {
    let verdict = evaluate(&BUILTIN, Some(&facts()), KEY, &[], at(NOW));
    assert_eq!(verdict, Verdict::Active(vec![]));
    assert_eq!(verdict.reason(), None);
}
