//! Tests properties of the verdict with generated permissions and questions.

use std::collections::BTreeSet;

use proptest::{prelude::*, sample::select};

use super::{
    super::super::{
        catalogue::{ACTIONS, BuiltinModule},
        permissions::{DraftBranches, DraftGrant},
    },
    *,
};

const NAMES: &[&str] = &["main", "dev", "live"];

fn access() -> impl Strategy<Value = Access> {
    select(vec![Access::Read, Access::ReadWrite])
}

fn grants() -> impl Strategy<Value = BTreeMap<BuiltinModule, Access>> {
    prop::collection::btree_map(select(BuiltinModule::ALL), access(), 1..12)
}

fn names() -> impl Strategy<Value = BTreeSet<&'static str>> {
    prop::collection::btree_set(select(NAMES), 0..=2)
}

fn branches() -> impl Strategy<Value = DraftBranches> {
    let listed = |names: BTreeSet<&str>| names.into_iter().map(str::to_owned).collect();
    (names(), names())
        .prop_filter("a narrowing names something", |(branches, aliases)| {
            !(branches.is_empty() && aliases.is_empty())
        })
        .prop_map(move |(branches, aliases)| DraftBranches {
            branches: listed(branches),
            aliases: listed(aliases),
        })
}

/// Generates valid permissions.
fn permissions() -> impl Strategy<Value = Draft> {
    let narrowed = (
        access(),
        prop::option::of(grants()),
        prop::option::of(branches()),
    );
    narrowed.prop_map(|(ceiling, grants, branches)| Draft {
        access: ceiling,
        modules: grants.map(|grants| {
            let grant = |(module, access): (BuiltinModule, Access)| DraftGrant {
                module: module.name().into(),
                access: Some(access.min(ceiling)),
            };
            grants.into_iter().map(grant).collect()
        }),
        branches,
    })
}

/// Generates a question. Most of its actions and names are known, so that many questions are
/// allowed.
fn question() -> impl Strategy<Value = ActionQuestion> {
    let known = select(ACTIONS).prop_map(|action| action.name.into_owned());
    let action = prop_oneof![9 => known, 1 => "[a-z_]{1,8}\\.[a-z_]{1,8}"];
    let named = || prop::option::of(select(NAMES).prop_map(str::to_owned));
    let approvers = prop::option::of(any::<bool>());
    (action, named(), named(), approvers).prop_map(|(name, branch, branch_alias, approvers)| {
        ActionQuestion {
            name,
            branch,
            branch_alias,
            facts: approvers
                .map(|has| ("has_approvers".to_owned(), has))
                .into_iter()
                .collect(),
        }
    })
}

/// Generates a question with arbitrary strings.
fn arbitrary_question() -> impl Strategy<Value = ActionQuestion> {
    let text = || any::<String>();
    let facts = prop::collection::btree_map(text(), any::<bool>(), 0..4);
    let named = || prop::option::of(text());
    (text(), named(), named(), facts).prop_map(|(name, branch, branch_alias, facts)| {
        ActionQuestion {
            name,
            branch,
            branch_alias,
            facts,
        }
    })
}

#[derive(Clone, Copy, Debug)]
enum Widening {
    RaiseCeiling,
    Grant(BuiltinModule, Access),
    DropModules,
    AddBranch(&'static str),
    AddAlias(&'static str),
    DropBranches,
}

fn widening() -> impl Strategy<Value = Widening> {
    prop_oneof![
        Just(Widening::RaiseCeiling),
        (select(BuiltinModule::ALL), access()).prop_map(|(of, access)| Widening::Grant(of, access)),
        Just(Widening::DropModules),
        select(NAMES).prop_map(Widening::AddBranch),
        select(NAMES).prop_map(Widening::AddAlias),
        Just(Widening::DropBranches),
    ]
}

/// Returns the permissions after this widening, which may leave them unchanged. A widening does not
/// add modules or branches to permissions that are not narrowed, because that would narrow them.
fn widen(mut draft: Draft, widening: Widening) -> Draft {
    match widening {
        Widening::RaiseCeiling => draft.access = Access::ReadWrite,
        Widening::DropModules => draft.modules = None,
        Widening::DropBranches => draft.branches = None,
        Widening::Grant(module, access) => {
            let access = access.min(draft.access);
            draft.modules = draft.modules.map(|grants| grant(grants, module, access));
        }
        Widening::AddBranch(name) => {
            if let Some(narrowed) = &mut draft.branches {
                add(&mut narrowed.branches, name);
            }
        }
        Widening::AddAlias(name) => {
            if let Some(narrowed) = &mut draft.branches {
                add(&mut narrowed.aliases, name);
            }
        }
    }
    draft
}

fn grant(mut grants: Vec<DraftGrant>, module: BuiltinModule, access: Access) -> Vec<DraftGrant> {
    match grants
        .iter_mut()
        .find(|grant| grant.module == module.name())
    {
        Some(grant) => grant.access = grant.access.max(Some(access)),
        None => grants.push(DraftGrant {
            module: module.name().into(),
            access: Some(access),
        }),
    }
    grants
}

fn add(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn deny_beats_allow(draft in permissions(), questions in prop::collection::vec(question(), 1..6)) {
        let alone: Vec<_> = questions.iter().map(|question| answer(&draft, question)).collect();
        let together = verdict(&draft, &questions);
        let first_denied = alone.iter().find_map(|answer| answer.as_ref().err());
        prop_assert_eq!(together.reason(), first_denied.map(|denial| denial.reason));
        let Verdict::Active(results) = together else { panic!("not active") };
        let names = questions.into_iter().map(|question| question.name);
        let expected: Vec<_> = names.zip(alone).map(|(name, denial)| ActionResult { name, denial }).collect();
        prop_assert_eq!(results, expected);
    }

    #[test]
    fn widening_a_grant_never_turns_an_allow_into_a_deny(
        draft in permissions(), widenings in prop::collection::vec(widening(), 1..4), questions in prop::collection::vec(question(), 20),
    ) {
        let wider = widenings.into_iter().fold(draft.clone(), widen);
        for question in questions {
            if answer(&draft, &question).is_ok() {
                prop_assert_eq!(answer(&wider, &question), Ok(()), "{:?}", question);
            }
        }
    }

    #[test]
    fn an_empty_scope_never_means_all(draft in permissions()) {
        let no_modules = Draft { modules: Some(vec![]), ..draft.clone() };
        prop_assert!(Permissions::try_from(no_modules).is_err());
        let no_branches = Draft { branches: Some(DraftBranches::default()), ..draft };
        prop_assert!(Permissions::try_from(no_branches).is_err());
    }

    #[test]
    fn no_token_may_do_what_no_token_may_ever_do(draft in permissions(), question in question()) {
        let never = BUILTIN.find(&question.name).is_some_and(|action| action.rule == Rule::Never);
        if never {
            prop_assert_eq!(answer(&draft, &question).map_err(|denial| denial.reason), Err(Reason::NeverAllowed));
        }
    }

    #[test]
    fn no_token_may_do_what_the_catalogue_lacks(draft in permissions(), question in arbitrary_question()) {
        prop_assume!(BUILTIN.find(&question.name).is_none());
        prop_assert_eq!(answer(&draft, &question).map_err(|denial| denial.reason), Err(Reason::ActionUnknown));
    }

    #[test]
    fn no_question_panics_and_each_has_one_answer(
        draft in permissions(), key in any::<String>(), now in -1_000_000_i64..1_000_000,
        questions in prop::collection::vec(prop_oneof![arbitrary_question(), question()], 0..4),
    ) {
        let facts = live(&draft);
        for key in [KEY, &key] {
            let judge = || evaluate(&BUILTIN, Some(&facts), key, &questions, at(now));
            prop_assert_eq!(judge(), judge());
        }
    }
}

#[test]
fn unnarrowed_read_allows_every_grantable_read_and_no_write() {
    for action in ACTIONS {
        let mut question = ask(&action.name);
        question.facts.insert("has_approvers".into(), false);
        let expected = action.access == ActionAccess::Read && action.rule == Rule::Grantable;
        let allowed = answer(&unnarrowed(Access::Read), &question).is_ok();
        assert_eq!(allowed, expected, "{}", action.name);
    }
}

#[test]
fn unnarrowed_read_write_allows_all_that_is_grantable_and_nothing_else() {
    for action in ACTIONS {
        for stated in [None, Some(false), Some(true)] {
            let mut question = ask(&action.name);
            let facts = stated.map(|has| ("has_approvers".to_owned(), has));
            question.facts.extend(facts);
            let expected = match action.rule {
                Rule::Grantable => true,
                Rule::Never => false,
                Rule::Conditional(_) => stated == Some(false),
            };
            let allowed = answer(&unnarrowed(Access::ReadWrite), &question).is_ok();
            assert_eq!(allowed, expected, "{} {stated:?}", action.name);
        }
    }
}

#[test]
fn token_narrowed_to_one_module_may_do_nothing_on_another() {
    for granted in BuiltinModule::ALL {
        let draft = Draft {
            modules: Some(grant(vec![], *granted, Access::ReadWrite)),
            ..unnarrowed(Access::ReadWrite)
        };
        for action in ACTIONS {
            let others = action.module != Module::Builtin(*granted);
            let allowed = answer(&draft, &ask(&action.name)).is_ok();
            assert!(!(others && allowed), "{} {}", granted.name(), action.name);
        }
    }
}
