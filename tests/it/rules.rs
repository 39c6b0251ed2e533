//! Where each rule of docs/rules.md is held to, through the wire. Every test named here
//! fails when its rule is broken on purpose. R12 is tried where there are replicas, in
//! tests/replicas and tests/process; that a change counts in the very next verdict stands with
//! the changes.
//!
//! | rule | tests |
//! |---|---|
//! | R1 | `a_token_works_only_with_the_key_of_its_own_stack`, `a_token_answers_for_its_stack_and_for_no_person`, `a_token_of_another_stack_is_not_found_by_any_rpc` |
//! | R2 | `owner_and_admins_rule_over_tokens_operators_shut_off_and_nobody_else_has_a_say`, `a_role_counts_only_while_one_has_it` |
//! | R3 | `access_and_expiry_have_no_default_and_the_refusal_names_the_choices` |
//! | R4 | `a_read_token_allows_exactly_the_grantable_reads`, `a_read_write_token_allows_exactly_what_the_catalogue_grants`, `an_action_that_the_catalogue_lacks_is_denied` |
//! | R5 | `what_no_token_may_ever_do_is_denied_under_the_widest_grants`, `a_management_token_is_no_credential_for_managing_tokens` |
//! | R6 | `the_eleventh_live_token_is_refused_and_none_is_evicted`, `revoked_and_expired_tokens_free_their_slots`, `an_operator_raises_and_lowers_the_limit_of_one_stack`, `of_sixty_four_issues_at_once_exactly_ten_succeed_in_every_round` |
//! | R7 | `now_and_a_past_instant_and_any_date_up_to_today_end_a_token_at_once`, `a_date_is_its_first_instant_in_utc`, `a_token_is_live_until_one_microsecond_before_its_expiry_and_dead_from_it_on` |
//! | R8 | `revoked_token_is_never_changed_again`, `expired_token_is_never_changed_again`, `a_change_that_found_a_token_expired_is_final_even_if_the_clock_goes_back`, `issuing_ends_the_expired_tokens_of_the_stack_for_good`, `an_expiry_set_to_today_is_final_even_if_the_clock_goes_back`, `the_dead_stay_dead_over_a_restart_on_a_host_whose_clock_is_behind` |
//! | R9 | `the_secret_is_in_the_answer_to_issue_and_nowhere_else`, `the_store_holds_no_secret_in_plain_text`, `a_text_field_of_a_token_that_holds_a_secret_is_refused_without_repeating_it`, `a_question_that_holds_a_secret_in_the_wrong_place_is_refused_without_repeating_it`, `a_text_field_of_a_stack_or_of_the_audit_is_refused_without_repeating_it_too` |
//! | R10 | `how_a_person_signed_in_makes_no_difference`, `any_configured_issuer_will_do_and_the_same_subject_of_another_is_somebody_else` |
//! | R11 | `a_token_lives_on_when_the_member_who_issued_it_is_removed`, `a_token_lives_on_when_the_stack_gets_another_owner` |
//! | R13 | `a_store_that_cannot_be_read_is_unavailable_and_never_a_verdict`, `a_store_that_lacks_a_table_is_a_fault_and_never_a_verdict`, `a_row_that_does_not_parse_is_a_fault_and_never_a_verdict` |
//! | R14 | `every_change_of_a_token_leaves_exactly_one_row_that_says_who_did_what`, `every_change_of_a_stack_leaves_exactly_one_row`, `where_the_audit_cannot_be_written_nothing_is_changed`, `refusals_are_one_row_per_caller_rpc_reason_and_minute_with_a_count`, `calls_without_a_credential_and_verdicts_leave_no_rows`, `the_audit_is_kept_for_its_own_time` |
//! | R15 | `dead_tokens_stay_listed_with_what_became_of_them_and_never_count`, `a_dead_token_can_still_be_read_with_when_by_whom_and_why`, `a_hundred_dead_tokens_leave_room_for_ten_live_ones`, `dead_tokens_are_deleted_after_their_time_and_not_before`, `of_a_random_lot_nothing_live_or_young_is_lost` |
//! | How a secret is replaced | `rotation_changes_nothing_but_the_secret_its_hint_and_the_generation`, `former_secret_lives_for_the_overlap_and_not_a_microsecond_longer`, `first_use_of_the_new_secret_ends_the_former_one_and_is_audited`, `an_overlap_ends_with_the_token_and_after_thirty_days`, `rotating_before_the_new_secret_was_used_replaces_it_and_the_earlier_end_counts`, `rotating_while_both_secrets_are_in_use_ends_the_older_at_once`, `what_cannot_be_recorded_is_not_answered_as_active`, `a_superseded_secret_that_is_presented_is_audited_once` |
//! | How a call is repeated | `issue_repeated_gives_the_same_token_a_fresh_secret_and_the_lost_one_dies`, `rotate_repeated_replaces_the_lost_secret_and_keeps_the_overlap`, `issue_is_answered_again_also_at_the_limit`, `a_request_id_is_used_up_by_use_change_death_time_and_other_content`, `request_ids_of_other_callers_stacks_and_rpcs_are_others`, `fifty_repetitions_at_once_leave_one_token_and_one_live_secret` |
//! | How a change is previewed | `a_preview_tells_what_becomes_of_a_token_and_leaves_every_row`, `a_preview_tells_what_becomes_of_a_stack_and_leaves_every_row`, `a_preview_is_refused_for_what_the_change_is`, `a_preview_does_not_use_up_a_request_id`, `what_a_preview_would_make_up_is_left_out`, `a_refused_preview_is_in_the_audit_and_one_that_succeeds_is_not` |
//! | How a leak is stopped | `each_filter_shows_and_then_revokes_its_tokens_and_no_other`, `what_changed_since_the_preview_stops_it_and_nothing_is_revoked`, `a_hash_of_another_stack_or_filter_is_refused_and_a_repetition_too`, `while_suspended_it_works_and_each_token_has_its_row_in_the_audit`, `those_left_out_for_having_expired_stay_dead_also_if_the_clock_goes_back`, `a_reported_token_is_dead_in_the_very_next_verdict`, `either_live_secret_kills_the_token_and_an_ended_one_does_not`, `whatever_is_reported_the_answer_is_the_same_bytes`, `people_may_not_report_and_nothing_happens`, `reports_count_as_changes_of_their_caller`, `an_outage_is_never_accepted` |

use std::{collections::BTreeSet, path::Path};

use syn::visit::{self, Visit};

/// Each rule of the table above, with its tests.
fn table() -> Vec<(&'static str, Vec<&'static str>)> {
    let rows = include_str!("rules.rs").lines().filter_map(|line| {
        let (rule, tests) = line.strip_prefix("//! | ")?.split_once(" | `")?;
        Some((rule, tests.split('`').step_by(2).collect()))
    });
    rows.collect()
}

/// What docs/rules.md promises: a number where it has one, else a title.
fn rules() -> Vec<&'static str> {
    let titles = include_str!("../../docs/rules.md")
        .lines()
        .filter_map(|line| line.strip_prefix("## "));
    let names = titles.map(|title| match title.split_once(' ') {
        Some((number, _)) if number[1..].parse::<u8>().is_ok() => number,
        _ => title,
    });
    names.filter(|rule| *rule != "R12").collect()
}

/// The names of all functions that are run as tests.
#[derive(Default)]
struct Tests(BTreeSet<String>);

impl<'ast> Visit<'ast> for Tests {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let is_test = |attribute: &syn::Attribute| {
            attribute
                .path()
                .segments
                .last()
                .is_some_and(|last| last.ident == "test")
        };
        let ignored = item
            .attrs
            .iter()
            .any(|attribute| attribute.path().is_ident("ignore"));
        if item.attrs.iter().any(is_test) && !ignored {
            self.0.insert(item.sig.ident.to_string());
        }
        visit::visit_item_fn(self, item);
    }
}

fn collect(folder: &Path, tests: &mut Tests) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            tests.visit_file(&syn::parse_file(&source).unwrap());
        }
    }
}

#[test]
fn every_rule_is_held_to_by_tests_that_exist() {
    let mut tests = Tests::default();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it"),
        &mut tests,
    );
    let table = table();
    let rules: Vec<_> = table.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(rules, self::rules());
    for (rule, named) in table {
        assert!(!named.is_empty(), "{rule}");
        for test in named {
            assert!(
                tests.0.contains(test),
                "{rule} names {test}, which is no test"
            );
        }
    }
}
