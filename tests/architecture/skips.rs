//! Checks that no test skips silently: a test returns early only if a function that reports the
//! skip returned `None`. See `tests/it/support/skips.rs`.

use std::{collections::BTreeSet, fs, path::Path};

use syn::visit::{self, Visit};

use crate::{require_none, tested::rust_files};

/// The only files that may contain the text of a skip: the implementation, and its tests.
const AT_HOME: &[&str] = &[
    "it/support/skips.rs",
    "process/skips.rs",
    "architecture/skips.rs",
];
/// The name of the function that reports a skip. A function that returns an `Option` and calls a
/// reporter is a reporter too.
const REPORTS: &str = "found_or_skip";

struct File {
    name: String,
    text: String,
    functions: Vec<Function>,
}

struct Function {
    name: String,
    is_test: bool,
    is_ignored: bool,
    gives_option: bool,
    body: syn::Block,
}

#[derive(Default)]
struct Functions(Vec<Function>);

impl Functions {
    fn add(
        &mut self,
        attributes: &[syn::Attribute],
        signature: &syn::Signature,
        body: &syn::Block,
    ) {
        let has = |name: &str| {
            let mut paths = attributes.iter().map(syn::Attribute::path);
            paths.any(|path| path.segments.last().is_some_and(|last| last.ident == name))
        };
        let gives_option = match &signature.output {
            syn::ReturnType::Type(_, given) => matches!(
                &**given,
                syn::Type::Path(path) if path.path.segments.last().unwrap().ident == "Option"
            ),
            syn::ReturnType::Default => false,
        };
        self.0.push(Function {
            name: signature.ident.to_string(),
            is_test: has("test"),
            is_ignored: has("ignore"),
            gives_option,
            body: body.clone(),
        });
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.attrs, &item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.attrs, &item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }
}

fn parse(name: &str, text: &str) -> File {
    let tree = syn::parse_file(text).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
    let mut functions = Functions::default();
    functions.visit_file(&tree);
    File {
        name: name.to_owned(),
        text: text.to_owned(),
        functions: functions.0,
    }
}

/// The names of the functions and methods that are called.
#[derive(Default)]
struct Calls(BTreeSet<String>);

impl<'ast> Visit<'ast> for Calls {
    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(path) = &*call.func {
            self.0
                .insert(path.path.segments.last().unwrap().ident.to_string());
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.0.insert(call.method.to_string());
        visit::visit_expr_method_call(self, call);
    }
}

/// Returns every function that returns `None` only after it has reported a skip.
fn reporters(files: &[File]) -> BTreeSet<String> {
    let mut known = BTreeSet::from([REPORTS.to_owned()]);
    loop {
        let functions = files.iter().flat_map(|file| &file.functions);
        let found = functions
            .filter(|function| function.gives_option)
            .filter(|function| {
                let mut calls = Calls::default();
                calls.visit_block(&function.body);
                !calls.0.is_disjoint(&known)
            });
        let found: BTreeSet<_> = found.map(|function| function.name.clone()).collect();
        let before = known.len();
        known.extend(found);
        if known.len() == before {
            return known;
        }
    }
}

/// Counts each `return` that does not depend on a reporter. A `return` in a closure or an async
/// block is not counted, because it does not leave the test.
struct Returns<'a> {
    reporters: &'a BTreeSet<String>,
    reported: bool,
    /// Whether the last expression of the test panics. If so, a `return` in a loop means success,
    /// not a skip.
    panics_last: bool,
    silent: usize,
}

impl<'ast> Returns<'_> {
    fn within(&mut self, asked: &'ast syn::Expr, visit: impl FnOnce(&mut Self)) {
        let mut calls = Calls::default();
        calls.visit_expr(asked);
        let before = self.reported;
        self.reported |= !calls.0.is_disjoint(self.reporters);
        visit(self);
        self.reported = before;
    }
}

impl<'ast> Visit<'ast> for Returns<'_> {
    fn visit_expr_return(&mut self, _: &'ast syn::ExprReturn) {
        self.silent += usize::from(!self.reported);
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        let Some(init) = &local.init else { return };
        self.visit_expr(&init.expr);
        if let Some((_, diverges)) = &init.diverge {
            self.within(&init.expr, |this| this.visit_expr(diverges));
        }
    }

    fn visit_expr_if(&mut self, branch: &'ast syn::ExprIf) {
        self.within(&branch.cond, |this| visit::visit_expr_if(this, branch));
    }

    fn visit_expr_match(&mut self, matched: &'ast syn::ExprMatch) {
        self.within(&matched.expr, |this| visit::visit_expr_match(this, matched));
    }

    fn visit_expr_for_loop(&mut self, repeated: &'ast syn::ExprForLoop) {
        if !self.panics_last {
            visit::visit_expr_for_loop(self, repeated);
        }
    }

    fn visit_expr_closure(&mut self, _: &'ast syn::ExprClosure) {}
    fn visit_expr_async(&mut self, _: &'ast syn::ExprAsync) {}
    fn visit_item(&mut self, _: &'ast syn::Item) {}
}

fn panics_last(body: &syn::Block) -> bool {
    let called = match body.stmts.last() {
        Some(syn::Stmt::Macro(last)) => &last.mac.path,
        Some(syn::Stmt::Expr(syn::Expr::Macro(last), _)) => &last.mac.path,
        _ => return false,
    };
    called.is_ident("panic")
}

fn silent_skips(files: &[File]) -> Vec<String> {
    let reporters = reporters(files);
    let mut faults = Vec::new();
    for file in files {
        for test in file.functions.iter().filter(|function| function.is_test) {
            let mut returns = Returns {
                reporters: &reporters,
                reported: false,
                panics_last: panics_last(&test.body),
                silent: 0,
            };
            returns.visit_block(&test.body);
            if returns.silent > 0 {
                let name = &test.name;
                faults.push(format!(
                    "{}: {name} returns early without reporting a skip",
                    file.name
                ));
            }
            if test.is_ignored {
                faults.push(format!("{}: {} is ignored", file.name, test.name));
            }
        }
        let is_at_home = AT_HOME.iter().any(|home| file.name.ends_with(home));
        for word in ["SKIPPED", "\"CI\""] {
            if !is_at_home && file.text.contains(word) {
                faults.push(format!("{}: has {word}; use {REPORTS}", file.name));
            }
        }
    }
    faults
}

#[test]
fn no_test_is_skipped_without_a_report() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = ["tests", "src"]
        .map(|folder| rust_files(&root.join(folder)))
        .concat();
    let parsed = sources.iter().map(|path| {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        parse(&name, &fs::read_to_string(path).unwrap())
    });
    let files: Vec<_> = parsed.collect();
    let known = reporters(&files);
    for expected in ["has_tool", "binary", "start"] {
        assert!(known.contains(expected), "{expected} is not in {known:?}");
    }
    require_none(silent_skips(&files));
}

#[test]
fn no_script_of_the_gate_skips_in_its_own_way() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let is_home = path.ends_with("skip.sh");
        for word in ["SKIPPED", "${CI", "$CI"] {
            assert!(is_home || !text.contains(word), "{path:?} has {word}");
        }
    }
}

#[test]
fn a_silent_skip_is_reported_however_it_is_written() {
    let finder = "fn tool() -> Option<u8> { found_or_skip(look(), \"it\") }\
                  fn plain() -> Option<u8> { look() }";
    for (test, faults) in [
        (
            "#[test] fn a() { let Some(x) = tool() else { return }; }",
            0,
        ),
        ("#[test] fn a() { if tool().is_none() { return; } }", 0),
        (
            "#[test] fn a() { match tool() { Some(x) => x, None => return }; }",
            0,
        ),
        ("#[test] fn a() { let f = || { return 5; }; f(); }", 0),
        (
            "#[test] fn a() { let Some(x) = plain() else { return }; }",
            1,
        ),
        (
            "#[tokio::test] async fn a() { if plain().is_none() { return; } }",
            1,
        ),
        (
            "#[test] fn a() { match plain() { Some(x) => x, None => return }; }",
            1,
        ),
        (
            "#[test] fn a() { if !Path::new(\"/usr/bin/x\").exists() { return; } }",
            1,
        ),
        (
            "#[test] fn a() { for x in y { if x { return; } } panic!(); }",
            0,
        ),
        ("#[test] fn a() { for x in y { if x { return; } } }", 1),
        ("#[test] fn a() { if x { return; } panic!(); }", 1),
        ("#[test] #[ignore = \"slow\"] fn a() { }", 1),
        ("fn a() { eprintln!(\"SKIPPED\"); }", 1),
        ("fn a() { std::env::var(\"CI\"); }", 1),
    ] {
        let file = parse("made_up.rs", &format!("{finder}{test}"));
        assert_eq!(silent_skips(&[file]).len(), faults, "{test}");
    }
}
