//! Tests that an operator's rows extend the catalogue but cannot loosen it.

use std::{borrow::Cow, collections::HashSet};

use super::{
    super::{
        ACTIONS,
        ActionAccess::{Read, Write},
        Fact,
        Rule::{Conditional, Grantable, Never},
        builtin::NO_APPROVERS,
    },
    *,
};

/// Returns a row for a new action that can be granted.
fn own(name: &str) -> Action {
    let (module, verb) = name.split_once('.').unwrap();
    let module = Module::named(module).unwrap();
    Action {
        name: Cow::Owned(name.to_owned()),
        access: if verb.starts_with("read") {
            Read
        } else {
            Write
        },
        rule: Grantable,
        branch_bound: matches!(&module, Module::Builtin(builtin) if is_branch_bound(*builtin)),
        module,
    }
}

fn built_in(name: &str) -> Action {
    Catalogue::builtin().find(name).unwrap().clone()
}

fn misfit(row: Action) -> (&'static str, String) {
    let repeated = built_in("entry.read");
    let fault = Catalogue::extended(vec![repeated, row]).unwrap_err();
    assert_eq!(fault.row, 1);
    (fault.column, fault.problem.to_string())
}

#[test]
fn rows_of_an_operator_add_actions_and_forbid_built_in_ones() {
    let mut forbidden = built_in("entry.delete");
    forbidden.rule = Never;
    let conditional = Action {
        rule: Never,
        ..built_in("publish_rule.create")
    };
    let rows = vec![
        own("zebra.update"),
        forbidden.clone(),
        own("entry.archive"),
        conditional.clone(),
        built_in("publish_rule.update"),
        own("ape.read"),
    ];
    let catalogue = Catalogue::extended(rows).unwrap();
    let mut expected = ACTIONS.to_vec();
    for row in [forbidden, conditional] {
        let at = expected.iter().position(|known| known.name == row.name);
        expected[at.unwrap()] = row;
    }
    expected.extend(["ape.read", "entry.archive", "zebra.update"].map(own));
    assert_eq!(catalogue.actions(), expected);
    for action in &expected {
        assert_eq!(catalogue.find(&action.name), Some(action));
    }
}

#[test]
fn no_row_loosens_or_redefines_an_action() {
    for name in [
        "token.read",
        "stack.update",
        "app.install",
        "publish_rule.create",
    ] {
        let row = Action {
            rule: Grantable,
            ..built_in(name)
        };
        let (column, problem) = misfit(row);
        assert_eq!(column, "rule", "{name}");
        assert!(problem.contains("set `rule` to NEVER"), "{problem}");
    }
    let fact = |name: &str, value| {
        let name = Cow::Owned(name.to_owned());
        Conditional(Fact { name, value })
    };
    for (column, row) in [
        (
            "rule",
            Action {
                rule: NO_APPROVERS,
                ..built_in("entry.update")
            },
        ),
        (
            "fact",
            Action {
                rule: fact("has_approvers", true),
                ..built_in("publish_rule.create")
            },
        ),
        (
            "fact",
            Action {
                rule: fact("approved", false),
                ..built_in("publish_rule.create")
            },
        ),
        (
            "access",
            Action {
                access: Read,
                ..built_in("entry.update")
            },
        ),
        (
            "access",
            Action {
                access: Write,
                rule: Never,
                ..built_in("entry.read")
            },
        ),
        (
            "branch_bound",
            Action {
                branch_bound: false,
                ..built_in("entry.update")
            },
        ),
        (
            "branch_bound",
            Action {
                branch_bound: true,
                rule: Never,
                ..built_in("role.read")
            },
        ),
    ] {
        assert_eq!(misfit(row.clone()).0, column, "{row}");
    }
}

#[test]
fn a_new_action_of_a_built_in_module_is_no_wider_than_the_built_in_ones() {
    let closed = [
        "token.export",
        "token.read_all",
        "organization.read_plan",
        "organization.rename",
        "user_session.read",
        "user_session.extend",
        "stack.rename",
        "branch.merge",
        "branch_alias.move",
        "app.configure",
        "stack_user.promote",
        "publish_request.comment",
        "audit_log.erase",
    ];
    for name in closed {
        let (column, problem) = misfit(own(name));
        assert_eq!(column, "rule", "{name}");
        assert!(problem.contains("(R5)"), "{problem}");
        let never = Action {
            rule: Never,
            ..own(name)
        };
        assert!(Catalogue::extended(vec![never]).is_ok(), "{name}");
        let conditional = Action {
            rule: NO_APPROVERS,
            ..own(name)
        };
        assert_eq!(misfit(conditional).0, "rule", "{name}");
    }
    for name in [
        "stack.read_plan",
        "branch.read_diff",
        "role.assign",
        "entry.archive",
    ] {
        assert!(Catalogue::extended(vec![own(name)]).is_ok(), "{name}");
    }
    let unbound = Action {
        branch_bound: false,
        ..own("entry.archive")
    };
    assert_eq!(misfit(unbound).0, "branch_bound");
}

#[test]
fn the_version_is_that_of_the_effective_rows_in_any_order() {
    let builtin = Catalogue::builtin();
    let version = |rows: Vec<Action>| Catalogue::extended(rows).unwrap().version().to_owned();
    assert_eq!(version(Vec::new()), builtin.version());
    assert_eq!(version(ACTIONS.to_vec()), builtin.version());
    let (one, other) = (own("ape.read"), own("zebra.update"));
    let both = version(vec![one.clone(), other.clone()]);
    assert_eq!(
        version(vec![other.clone(), built_in("role.read"), one.clone()]),
        both
    );
    let never = Action {
        rule: Never,
        ..built_in("role.read")
    };
    let bound = Action {
        branch_bound: true,
        ..own("ape.read")
    };
    let rows = [
        vec![one.clone()],
        vec![other],
        vec![never.clone()],
        vec![one, never],
        vec![bound],
    ];
    let mut seen = HashSet::from([builtin.version().to_owned(), both]);
    for rows in rows {
        assert!(seen.insert(version(rows.clone())), "{rows:?}");
    }
}

#[test]
fn a_module_can_be_granted_while_any_of_its_actions_can() {
    let mut rows: Vec<_> = ACTIONS.to_vec();
    for row in rows.iter_mut().filter(|row| row.name.starts_with("role.")) {
        row.rule = Never;
    }
    rows.push(own("ape.read"));
    rows.push(Action {
        rule: Never,
        ..own("zebra.update")
    });
    let catalogue = Catalogue::extended(rows).unwrap();
    let is_granted = |name| catalogue.parse_grantable(name).is_ok();
    let granted = ["ape", "entry", "role", "zebra", "yak"].map(is_granted);
    assert_eq!(granted, [true, true, false, false, false]);
    let problem = catalogue.parse_grantable("yak").unwrap_err().to_string();
    assert!(problem.ends_with("app, ape"), "{problem}");
    assert!(!problem.contains("role"), "{problem}");
}

#[test]
fn a_catalogue_with_many_modules_lists_as_many_as_fit() {
    let row = |index: usize| own(&format!("module_{index:03}.read"));
    let catalogue = Catalogue::extended((0..100).map(row).collect()).unwrap();
    let problem = catalogue.parse_grantable("nope").unwrap_err().to_string();
    assert!(problem.len() < 750, "{problem}");
    let others = " others, which ListActions has";
    let counted = problem.strip_suffix(others).unwrap();
    let (listed, count) = counted.rsplit_once(", or of ").unwrap();
    let listed = listed.split(", ").count();
    assert_eq!(listed + count.parse::<usize>().unwrap(), 123);
}
