//! Finds the paths of all tests of the workspace in the sources, because documents may name only
//! tests that exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use syn::visit::{self, Visit};

/// The paths of the tests of every binary. A path starts with its binary, or `lib` for unit tests.
pub struct Tests(Vec<Vec<String>>);

impl Tests {
    pub fn of_the_workspace() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut tests = Self(Vec::new());
        for src in ["src", "crates/core/src", "crates/client/src"].map(|src| root.join(src)) {
            for file in rust_files(&src) {
                let module = module_of(file.strip_prefix(&src).unwrap());
                let path = std::iter::once("lib".to_owned()).chain(module);
                tests.read(&file, path.collect());
            }
        }
        for file in rust_files(&root.join("tests")) {
            let module = module_of(file.strip_prefix(root.join("tests")).unwrap());
            tests.read(&file, module);
        }
        tests
    }

    fn read(&mut self, file: &Path, module: Vec<String>) {
        let text = fs::read_to_string(file).unwrap();
        let tree = syn::parse_file(&text).unwrap_or_else(|wrong| panic!("{file:?}: {wrong}"));
        let mut finder = Finder::default();
        finder.visit_file(&tree);
        // The first pass only found the macros that define tests. The second pass also finds the
        // tests that these macros define.
        finder.found.clear();
        finder.module = module;
        finder.visit_file(&tree);
        self.0.extend(finder.found);
    }

    /// Returns whether there is a test with this name. The name may include some of the test's
    /// modules.
    pub fn has(&self, name: &str) -> bool {
        let name: Vec<_> = name.split("::").collect();
        self.0.iter().any(|path| {
            let from = path.len().checked_sub(name.len());
            from.is_some_and(|from| path[from..].iter().eq(name.iter()))
        })
    }

    /// Returns whether `cargo test --test BINARY FILTER` runs a test.
    pub fn any_run(&self, binary: &str, filter: &str) -> bool {
        let mut of = self.0.iter().filter(|path| path[0] == binary);
        of.any(|path| path[1..].join("::").contains(filter))
    }
}

pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Returns the module path of a file: `it::tokens` for `it/tokens/mod.rs`, `it` for `it/main.rs`.
fn module_of(file: &Path) -> Vec<String> {
    let mut parts: Vec<_> = file
        .with_extension("")
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if parts
        .last()
        .is_some_and(|last| ["mod", "main", "lib"].contains(&last.as_str()))
    {
        parts.pop();
    }
    parts
}

#[derive(Default)]
struct Finder {
    module: Vec<String>,
    /// Macros in this file that define one test for each `name => …`.
    makers: BTreeSet<String>,
    found: Vec<Vec<String>>,
}

impl Finder {
    fn note(&mut self, name: &str) {
        let path = self.module.iter().cloned();
        self.found.push(path.chain([name.to_owned()]).collect());
    }
}

fn is(attribute: &syn::Attribute, name: &str) -> bool {
    let last = attribute.path().segments.last();
    last.is_some_and(|last| last.ident == name)
}

/// Returns the first word of a text.
fn word(text: &str) -> &str {
    let text = text.trim_start();
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    &text[..end.unwrap_or(text.len())]
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let ignored = item.attrs.iter().any(|attribute| is(attribute, "ignore"));
        if item.attrs.iter().any(|attribute| is(attribute, "test")) && !ignored {
            self.note(&item.sig.ident.to_string());
        }
        visit::visit_item_fn(self, item);
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        let tokens = item.mac.tokens.to_string().replace(' ', "");
        if let Some(name) = &item.ident
            && tokens.contains("test")
            && tokens.contains("fn$name")
        {
            self.makers.insert(name.to_string());
        }
        visit::visit_item_macro(self, item);
    }

    /// Finds tests in the text of a macro call's tokens, which `syn` does not parse.
    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let tokens = called.tokens.to_string();
        let squeezed = tokens.replace("# [", "#[").replace("[ test ]", "[test]");
        for after in squeezed.split("#[test]").skip(1) {
            if let Some(rest) = after.trim_start().strip_prefix("fn ") {
                self.note(word(rest));
            }
        }
        let last = called.path.segments.last().unwrap().ident.to_string();
        if self.makers.contains(&last) {
            for entry in tokens.split(';').filter(|entry| entry.contains("=>")) {
                self.note(word(entry));
            }
        }
    }
}
