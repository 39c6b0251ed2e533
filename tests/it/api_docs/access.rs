//! Renders the table of RPCs and their callers from the server's policy table.

use std::fmt::Write as _;

use stacktoken::{
    auth::policy::{self, AllowedCallers, RULES},
    domain::caller::Requirement,
};

/// The heading of a column, and whether a requirement admits the callers of that column.
type Column = (&'static str, fn(&Requirement) -> bool);

/// The columns of the table of RPCs and their callers.
const COLUMNS: [Column; 5] = [
    ("owner, admin", |required| {
        required.stack_admin || required.user || required.anyone
    }),
    ("every other user", |required| {
        required.user || required.anyone
    }),
    ("operator", |required| {
        required.operator || required.user || required.anyone
    }),
    ("service that introspects", |required| {
        required.introspector || required.service || required.anyone
    }),
    ("other service", |required| {
        required.service || required.anyone
    }),
];

/// Describes who may call an RPC, for the section of its service.
pub fn in_words(path: &str) -> String {
    match policy::rule(&format!("/{path}")).map(|rule| rule.admits) {
        None => "nobody".to_owned(),
        Some(AllowedCallers::Everybody) => "everybody, without a credential".to_owned(),
        Some(AllowedCallers::Callers(required)) if required.holder => {
            "everybody who has the secret, without a credential".to_owned()
        }
        Some(AllowedCallers::Callers(required)) if required.anyone => {
            "every authenticated caller".to_owned()
        }
        Some(AllowedCallers::Callers(required)) => {
            let ways = [
                (required.user, "every user, operators too"),
                (required.stack_admin, "the owner and admins of the stack"),
                (required.operator, "operators"),
                (required.introspector, "services with the introspect role"),
                (required.service, "services"),
            ];
            let who: Vec<_> = ways.iter().filter(|way| way.0).map(|way| way.1).collect();
            who.join(", ")
        }
    }
}

/// Returns whether an RPC reads a credential.
pub fn reads_credential(path: &str) -> bool {
    let rule = policy::rule(&format!("/{path}"));
    rule.is_some_and(|rule| match rule.admits {
        AllowedCallers::Everybody => false,
        AllowedCallers::Callers(required) => !required.holder,
    })
}

/// Renders the table of all RPCs that the server offers and their callers.
pub fn matrix() -> String {
    let mut out = "\n## Who may call what\n\nFrom the policy table of the server (`src/auth/policy.rs`). An RPC that is not in it is \
        denied. *Owner, admin* are the owner and the admins of the stack that the call names. An operator has a role in a stack \
        only if it was added as a member. A change counts against its caller's rate limit for changes.\n\n| RPC | changes |".to_owned();
    for (name, _) in COLUMNS {
        let _ = write!(out, " {name} |");
    }
    let _ = write!(out, "\n|---|---|{}\n", "---|".repeat(COLUMNS.len()));
    for rule in RULES {
        let path = rule.path.trim_start_matches('/');
        let _ = write!(out, "| `{path}` | {} |", mark(rule.changes));
        for (_, meets) in COLUMNS {
            let admitted = match &rule.admits {
                AllowedCallers::Everybody => true,
                AllowedCallers::Callers(required) => meets(required) || required.holder,
            };
            let _ = write!(out, " {} |", mark(admitted));
        }
        out.push('\n');
    }
    let open = RULES.iter().filter(|rule| match rule.admits {
        AllowedCallers::Everybody => true,
        AllowedCallers::Callers(required) => required.holder,
    });
    let open: Vec<_> = open
        .map(|rule| format!("`{}`", rule.path.trim_start_matches('/')))
        .collect();
    let _ = writeln!(out, "\nWithout a credential: {}.", open.join(", "));
    out
}

const fn mark(yes: bool) -> &'static str {
    if yes { "yes" } else { "" }
}
