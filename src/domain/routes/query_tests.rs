//! Tests which query parameters are rejected or need more actions or branches, in various
//! spellings.

use super::{Query, QueryFault, check_query};

#[test]
fn a_query_that_replaces_a_header_is_recognized() {
    for query in [
        "branch=main",
        "a=1&branch=main",
        "a=1;branch",
        "BRANCH=x",
        "%62ranch=x",
        "bran%63h",
        "branch[]=x",
        "branch%5B0%5D=x",
        "branch.name=x",
        "[branch]=x",
        "[][branch]=x",
        ".branch=x",
        "_branch=x",
        "api_key=x",
        "api-key=x",
        "api.key=x",
        "api[key=x",
        "apikey=x",
        "api%5Fkey=x",
        "authorization=x",
        "[Authorization]=x",
        "authtoken=x",
        "auth_token=x",
        "AUTH-TOKEN=x",
        "x-auth-token=x",
        "x_authtoken=x",
        "access_token=x",
        "access-token=x",
        "_method=DELETE",
        "_METHOD=x",
        "-method=x",
        ".method=x",
        "[_method]=x",
        "_httpmethod=x",
        "$httpMethod=x",
        "httpMethod=x",
        "http_method=x",
        "x-http-method-override=x",
        "X_HTTP_Method=x",
        "http-method-override=x",
        "x-original-uri=x",
        "x_forwarded_method=x",
        "x-method=x",
        "http-method=x",
        "x-original-path=x",
        "X-Forwarded-Prefix=x",
    ] {
        assert_eq!(check_query(query), Err(QueryFault::Ambiguous), "{query}");
    }
}

#[test]
fn a_query_name_with_other_characters_than_names_have_is_ambiguous() {
    for query in [
        "%",
        "%b",
        "a%2",
        "a%20b=1",
        "a+b=1",
        "+branch=x",
        "bra+nch=x",
        "branch%00=x",
        "branch%09=x",
        "branch{}=x",
        "branch:a=x",
        "?branch=x",
        "a#branch=x",
        "a%26branch=x",
        "%2562ranch=x",
        "%EF%BB%BFbranch=x",
        "\u{ff42}ranch=x",
        "a=1&b|c",
    ] {
        assert_eq!(check_query(query), Err(QueryFault::Ambiguous), "{query}");
    }
}

#[test]
fn a_query_for_people_is_recognized() {
    for query in [
        "include_collaborators=true",
        "include_collaborators",
        "include_collaborators=",
        "include_collaborators=0",
        "include_collaborators=False",
        "include_collaborators=false;",
        "include_collaborators=false;x=1",
        "x=1;include_collaborators=false",
        "include_collaborators[]=false",
        "include_collaborators=%66alse",
        "include_collaborators=false&include_collaborators=false",
        "include_collaborators=false&include_collaborators=true",
        "a=1&Include-Collaborators=false",
        "include%5Fcollaborators[]=1",
        "include[collaborators]=1",
    ] {
        assert_eq!(check_query(query), Err(QueryFault::People), "{query}");
    }
}

#[test]
fn a_query_that_asks_for_credentials_needs_the_action_that_no_token_has() {
    for query in [
        "include_discrete_variables=true",
        "include_discrete_variables",
        "include_discrete_variables=False",
        "INCLUDE-discrete-variables[]=1&include_discrete_variables=1",
        "include_discrete_variables=false&include_discrete_variables=false",
        "a=1;include_discrete_variables=false",
    ] {
        let found = check_query(query).unwrap();
        assert_eq!(found.actions, ["stack.read_credentials"], "{query}");
    }
}

#[test]
fn the_branches_that_a_query_names_are_found_whatever_the_spelling() {
    for (query, expected) in [
        ("base_branch=a&compare_branch=b", ["a", "b"].as_slice()),
        ("base_branch=a&base_branch=b", &["a", "b"]),
        ("Base-Branch[]=a&limit=1", &["a"]),
        ("baseBranch=%61", &["a"]),
        ("x=1;compare_branch", &[]),
        ("base_branch=a;b", &[]),
        ("base_branch=", &[]),
        ("base_branch=a%20b", &[]),
        (
            "base_branch=a&base_branch=b&base_branch=c&base_branch=d&base_branch=e",
            &[],
        ),
    ] {
        match check_query(query) {
            Ok(found) => assert_eq!(Vec::from_iter(found.branches), expected, "{query}"),
            Err(fault) => assert!(
                fault == QueryFault::Branch && expected.is_empty(),
                "{query}"
            ),
        }
    }
}

#[test]
fn other_queries_are_left_alone() {
    for query in [
        "",
        "&",
        "locale=en-us&&limit=1",
        "include_branch=true",
        "include[]=author&include[1]=x",
        "only[BASE][]=title",
        "q=branch",
        "query={\"branch\":1}",
        "query=%7B%22a%22%3A%7B%22$in%22%3A%5B1%5D%7D%7D",
        "a[branch]=x",
        "a=1|branch=x",
        "method=x",
        "$filter=x",
        "branch_alias=x",
        "include_collaborators=false",
        "a=1&include_collaborators=false&include_discrete_variables=false&b",
        "x-bulk-action=publish",
    ] {
        assert_eq!(check_query(query), Ok(Query::default()), "{query}");
    }
}
