//! Tests which requests have an entry in the built-in route table.

use super::*;
use crate::domain::catalogue::{self, Catalogue};

fn builtin() -> RouteTable {
    RouteTable::builtin().unwrap()
}

fn needs(method: &str, path: &str) -> String {
    let table = builtin();
    let actions = table.actions(method, path);
    actions.map_or("unknown".into(), |actions| actions.join(","))
}

/// Method, path, and the actions that the built-in table requires.
const BUILT_IN: &[(&str, &str, &str)] = &[
    ("GET", "/v3/content_types", "content_type.read"),
    ("GET", "/v3/content_types/blog", "content_type.read"),
    (
        "POST",
        "/v3/content_types/import",
        "content_type.create,content_type.update",
    ),
    ("GET", "/v3/content_types/blog/entries", "entry.read"),
    ("POST", "/v3/content_types/blog/entries", "entry.create"),
    ("PUT", "/v3/content_types/blog/entries/blt1", "entry.update"),
    (
        "DELETE",
        "/v3/content_types/blog/entries/blt1",
        "entry.delete",
    ),
    (
        "POST",
        "/v3/content_types/blog/entries/blt1/publish",
        "entry.publish",
    ),
    (
        "POST",
        "/v3/content_types/blog/entries/blt1/workflow",
        "workflow.change_stage",
    ),
    ("POST", "/v3/assets", "asset.create"),
    ("POST", "/v3/assets/blt1/unpublish", "asset.unpublish"),
    ("DELETE", "/v3/assets/folders/blt1", "asset.delete"),
    (
        "PUT",
        "/v3/global_fields/seo",
        "global_field.update,content_type.update",
    ),
    ("GET", "/v3/labels", "label.read"),
    ("GET", "/v3/extensions/blt1", "extension.read"),
    (
        "POST",
        "/v3/releases/blt1/deploy",
        "release.deploy,entry.publish,entry.unpublish,asset.publish,asset.unpublish",
    ),
    ("POST", "/v3/bulk/publish", "entry.publish,asset.publish"),
    ("GET", "/v3/environments/production", "environment.read"),
    ("GET", "/v3/environments/my%20own", "environment.read"),
    ("GET", "/v3/locales/en-us", "locale.read"),
    ("POST", "/v3/webhooks/blt1/retry", "webhook.update"),
    ("DELETE", "/v3/roles/blt1", "role.delete"),
    ("GET", "/v3/workflows/blt1/disable", "workflow.update"),
    ("PUT", "/v3/workflows/blt1", "workflow.update"),
    (
        "PUT",
        "/v3/workflows/publishing_rules/blt1",
        "publish_rule.update",
    ),
    ("GET", "/v3/publish-queue", "publish_queue.read"),
    ("GET", "/v3/audit-logs/blt1", "audit_log.read"),
    ("GET", "/v3/stacks/branches", "branch.read"),
    ("POST", "/v3/stacks/branches", "branch.create"),
    (
        "DELETE",
        "/v3/stacks/branch_aliases/deploy",
        "branch_alias.delete",
    ),
    (
        "GET",
        "/v3/publish-queue/blt1/unschedule",
        "publish_queue.unschedule",
    ),
    ("GET", "/v3/bulk/jobs/blt1/items", "publish_queue.read"),
    (
        "PUT",
        "/v3/taxonomies/colors/terms/red/move",
        "taxonomy.update",
    ),
    ("GET", "/v3/taxonomies/$all/terms", "taxonomy.read"),
    ("POST", "/v3/taxonomies/publish", "taxonomy.publish"),
    ("DELETE", "/v3/taxonomies/colors", "taxonomy.delete"),
    ("POST", "/v3/variant_groups/blt1/variants", "variant.create"),
    ("DELETE", "/v3/variants/blt1", "variant.delete"),
    (
        "PUT",
        "/v3/content_types/blog/entries/blt1/variants/blt2",
        "entry.update",
    ),
    ("POST", "/v3/stacks/branches/main/settings", "branch.update"),
    ("GET", "/v3/stacks/settings", "stack.read_credentials"),
    (
        "DELETE",
        "/v3/organizations/blt1/teams/blt2/users/blt3",
        "organization.update",
    ),
    ("GET", "/v3/user/assignments", "user_session.create"),
    ("POST", "/manifests/blt1/install", "app.install"),
    ("GET", "/installations/blt1/locations", "app.read"),
    ("GET", "/v3/stacks", "stack.read"),
    ("PUT", "/v3/stacks", "stack.update"),
    ("POST", "/v3/stacks/management_tokens", "token.create"),
    ("GET", "/v3/stacks/delivery_tokens/blt1", "token.read"),
    ("GET", "/v3/user", "user_session.create"),
    ("GET", "/v3/organizations", "organization.read"),
    ("HEAD", "/v3/stacks", "stack.read"),
    ("HEAD", "/v3/workflows/blt1/enable", "workflow.update"),
];

#[test]
fn the_built_in_table_knows_the_content_management_api() {
    for (method, path, actions) in BUILT_IN {
        assert_eq!(needs(method, path), *actions, "{method} {path}");
    }
}

#[test]
fn what_changes_or_shows_other_things_too_needs_their_actions_as_well() {
    for (method, path, actions) in [
        (
            "DELETE",
            "/v3/content_types/blog",
            "content_type.delete,entry.delete",
        ),
        (
            "DELETE",
            "/v3/global_fields/seo",
            "global_field.delete,content_type.update",
        ),
        (
            "POST",
            "/v3/global_fields/seo/import",
            "global_field.update,content_type.update",
        ),
        (
            "POST",
            "/v3/global_fields/import",
            "global_field.create,global_field.update,content_type.update",
        ),
        (
            "POST",
            "/v3/content_types/blog/entries/import",
            "entry.create,entry.update",
        ),
        (
            "POST",
            "/v3/content_types/blog/entries/blt1/unlocalize",
            "entry.update,entry.delete",
        ),
        ("GET", "/v3/assets/blt1/references", "asset.read,entry.read"),
        (
            "DELETE",
            "/v3/environments/production",
            "environment.delete,entry.unpublish,asset.unpublish",
        ),
        ("DELETE", "/v3/locales/de", "locale.delete,entry.delete"),
        ("GET", "/v3/taxonomies/entries", "taxonomy.read,entry.read"),
        ("PUT", "/v3/metadata/blt1", "entry.update,asset.update"),
        (
            "GET",
            "/v3/stacks/branches_compare",
            "branch.read,content_type.read,global_field.read",
        ),
        (
            "POST",
            "/v3/webhooks/import",
            "webhook.create,webhook.update",
        ),
    ] {
        assert_eq!(needs(method, path), actions, "{method} {path}");
    }
}

#[test]
fn what_the_table_does_not_know_is_unknown() {
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/v3"),
        ("GET", "/v2/stacks"),
        ("PATCH", "/v3/taxonomies"),
        ("PATCH", "/v3/stacks"),
        ("OPTIONS", "/v3/stacks"),
        ("CONNECT", "/v3/stacks"),
        ("get", "/v3/stacks"),
        ("", "/v3/stacks"),
        ("GET", "/V3/stacks"),
        ("GET", "/v3/stacks/anything/else"),
        ("POST", "/v3/content_types/blog/entries/blt1"),
        ("PUT", "/v3/publish-queue/blt1/unschedule"),
        ("POST", "/v3/stacks/branches_compare"),
        ("PUT", "/v3/content_types/blog/entries/blt1/rollback"),
        ("POST", "/v3/content_types/blog/entries/blt1/restore"),
        ("POST", "/v3/content_types/blog/entries/blt1/localize"),
        ("GET", "/v3/bulk/publish"),
    ] {
        assert_eq!(needs(method, path), "unknown", "{method} {path}");
    }
}

#[test]
fn a_word_of_the_table_is_never_taken_for_a_name_in_any_case() {
    assert_eq!(
        needs("PUT", "/v3/workflows/Publishing_Rules"),
        "unknown",
        "a router that folds case would change a rule"
    );
    assert_eq!(needs("PUT", "/v3/workflows/publishing_rules"), "unknown");
    assert_eq!(needs("GET", "/v3/assets/FOLDERS"), "unknown");
}

#[test]
fn a_path_with_more_than_one_reading_is_unknown() {
    for path in [
        "",
        "v3/stacks",
        "//v3/stacks",
        "/v3//stacks",
        "/v3/stacks/",
        "/v3/./stacks",
        "/v3/x/../stacks",
        "/v3/roles/.",
        "/v3/roles/..",
        "/v3/roles/...",
        "/v3/roles/%2e%2e",
        "/v3/roles/%2E",
        "/v3/roles/.a",
        "/v3/roles/a.",
        "/v3/roles/%20a",
        "/v3/roles/a%20",
        "/v3/roles/+a",
        "/v3/roles/a+",
        "/v3/workflows/%20publishing_rules/a",
        "/v3/workflows/publishing_rules./a",
        "/v3/roles/a%2520",
        "/v3/roles/a%252520b",
        "/v3/roles/a%2fb",
        "/v3/roles/a%2Fb",
        "/v3/roles/a%5cb",
        "/v3/roles/a\\b",
        "/v3/roles/a;b",
        "/v3/roles;x=1",
        "/v3/roles/a%3bb",
        "/v3/roles/a%3Fb",
        "/v3/roles/a%23b",
        "/v3/roles/a#b",
        "/v3/roles/a?b",
        "/v3/roles/%252e",
        "/v3/roles/%61",
        "/v3/roles/%7e",
        "/v3/%72oles",
        "/v3/roles/%",
        "/v3/roles/%2",
        "/v3/roles/%zz",
        "/v3/roles/%+1",
        "/v3/roles/%00",
        "/v3/roles/%0a",
        "/v3/roles/a\0",
        "/v3/roles/a\n",
        "/v3/roles/a b",
        "/v3/roles/\u{e9}",
        "/v3/roles/%c3%a9",
        "/v3/roles/%c0%af",
        "/v3/roles/\u{ff0e}\u{ff0e}",
        "http://host/v3/roles",
        "*",
    ] {
        assert!(!is_canonical(path), "{path:?}");
        assert_eq!(needs("GET", path), "unknown", "{path:?}");
    }
    let deep = "/a".repeat(40);
    assert!(!is_canonical(&deep));
    assert!(is_canonical("/v3/roles/a%20b-._~!$&'()*+,=:@"));
}

#[test]
fn a_query_is_cut_at_its_first_mark() {
    assert_eq!(split_query("/a"), ("/a", None));
    assert_eq!(split_query("/a?b?c"), ("/a", Some("b?c")));
    assert_eq!(split_query("/a?"), ("/a", Some("")));
}

#[test]
fn the_default_branch_is_main_unless_the_file_says_otherwise() {
    assert_eq!(builtin().default_branch(), "main");
    let entry = "[[routes]]\nmethod = \"GET\"\npath = \"/a\"\nactions = [\"entry.read\"]\n";
    let parsed = RouteTable::parse(entry, &Catalogue::builtin()).unwrap();
    assert_eq!(parsed.default_branch(), "main");
    let trunk = format!("default_branch = \"trunk\"\n{entry}");
    let other = RouteTable::parse(&trunk, &Catalogue::builtin()).unwrap();
    assert_eq!(other.default_branch(), "trunk");
    assert_eq!(other.actions("GET", "/a").unwrap(), ["entry.read"]);
    assert_eq!(other.actions("GET", "/b"), None);
}

#[test]
fn every_grantable_action_of_the_catalogue_has_a_route() {
    let table = builtin();
    let found: Vec<_> = table
        .routes
        .iter()
        .flat_map(|route| &route.actions)
        .collect();
    let catalogue = Catalogue::builtin();
    assert!(found.iter().all(|name| catalogue.find(name).is_some()));
    // This version of the API has no path that needs only this action.
    let without = "publish_request.read";
    for action in catalogue.actions() {
        let grantable = action.rule != catalogue::Rule::Never;
        if grantable && action.name != without {
            assert!(
                found.iter().any(|name| **name == *action.name),
                "{}",
                action.name
            );
        }
    }
}

#[test]
fn only_requests_that_read_need_no_action_that_writes() {
    let catalogue = Catalogue::builtin();
    let reads = |name: &String| {
        let action = catalogue.find(name).unwrap();
        action.access == catalogue::ActionAccess::Read
    };
    for route in builtin().routes {
        let harmless = route.actions.iter().all(reads);
        assert!(!harmless || route.method == "GET", "{route:?}");
    }
}
