//! Finds the paths that a source file names, in `use` declarations, inline and within macros, and
//! expands them from the crate root. This module knows Rust, but not the dependency rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::visit::{self, Visit};

/// The segments of an expanded path, such as `crate`, `store`, `Error`.
pub type Segments = Vec<String>;

/// The crates below `crates/`. The rules treat each crate as a module of the same name.
pub const CRATES: [&str; 2] = ["core", "client"];

/// A source file with its module and the paths that it names.
pub struct Source {
    /// The path below `src/`, separated by `/`. For a file of one of the [`CRATES`], the path
    /// starts with the name of the crate.
    pub file: String,
    /// The path of the file's module from the crate root; empty for `lib.rs`.
    pub module: Segments,
    pub text: String,
    pub names: BTreeSet<Segments>,
    children: Vec<(Segments, PathBuf)>,
}

impl Source {
    pub fn parse(file: &str, module: &[&str], text: &str) -> Self {
        let module: Segments = module.iter().map(|part| (*part).to_owned()).collect();
        let folder = Path::new(file).parent().unwrap().to_owned();
        let tree = syn::parse_file(text).unwrap_or_else(|wrong| panic!("{file}: {wrong}"));
        let mut imports = Imports::default();
        imports.visit_file(&tree);
        let mut reader = Reader {
            module: module.clone(),
            imports: imports.0,
            names: BTreeSet::new(),
            children: Vec::new(),
            folder,
            owns_folder: matches!(
                Path::new(file).file_stem().unwrap().to_str(),
                Some("mod" | "lib" | "main")
            ),
        };
        reader.visit_file(&tree);
        Self {
            file: file.to_owned(),
            module,
            text: text.to_owned(),
            names: reader.names,
            children: reader.children,
        }
    }

    /// Parses every file of the server's crate in this folder. Files are found by following `mod`
    /// items from the crate roots.
    pub fn tree(src: &Path) -> Vec<Self> {
        let roots = [("lib.rs", vec![]), ("main.rs", vec!["main".to_owned()])];
        let roots = roots.map(|(file, module)| (module, file.into()));
        Self::reachable(roots.into(), |file| src.join(file))
    }

    /// Parses every file of one of the [`CRATES`]. The name of the crate is put before each file
    /// and module path.
    pub fn tree_of_crate(name: &str, src: &Path) -> Vec<Self> {
        let root = (vec![name.to_owned()], Path::new(name).join("lib.rs"));
        let strip = |file: &Path| src.join(file.strip_prefix(name).unwrap());
        Self::reachable(vec![root], strip)
    }

    fn reachable(
        mut todo: Vec<(Segments, PathBuf)>,
        locate: impl Fn(&Path) -> PathBuf,
    ) -> Vec<Self> {
        let mut sources = Vec::new();
        while let Some((module, file)) = todo.pop() {
            let text = fs::read_to_string(locate(&file)).unwrap();
            let module: Vec<_> = module.iter().map(String::as_str).collect();
            let source = Self::parse(file.to_str().unwrap(), &module, &text);
            for (module, place) in &source.children {
                let folder = place.with_extension("").join("mod.rs");
                let found = [place.clone(), folder];
                let found = found.into_iter().find(|file| locate(file).is_file());
                todo.push((module.clone(), found.unwrap_or_else(|| panic!("{place:?}"))));
            }
            sources.push(source);
        }
        sources.sort_by(|one, other| one.file.cmp(&other.file));
        sources
    }
}

/// The full path of each name that the file imports.
#[derive(Default)]
struct Imports(BTreeMap<String, Segments>);

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        flatten(&item.tree, &mut Vec::new(), &mut |path, name| {
            self.0.insert(name.to_owned(), path);
        });
    }
}

fn flatten(tree: &syn::UseTree, at: &mut Segments, found: &mut impl FnMut(Segments, &str)) {
    let with = |at: &Segments, ident: &syn::Ident| {
        let mut path = at.clone();
        if ident != "self" || path.is_empty() {
            path.push(ident.to_string());
        }
        path
    };
    match tree {
        syn::UseTree::Path(path) => {
            at.push(path.ident.to_string());
            flatten(&path.tree, at, found);
            at.pop();
        }
        syn::UseTree::Name(name) => {
            let path = with(at, &name.ident);
            let last = path.last().unwrap().clone();
            found(path, &last);
        }
        syn::UseTree::Rename(renamed) => {
            found(with(at, &renamed.ident), &renamed.rename.to_string());
        }
        syn::UseTree::Glob(_) => found(at.clone(), "*"),
        syn::UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, at, found);
            }
        }
    }
}

struct Reader {
    /// The current module, which may be an inline module of the file.
    module: Segments,
    imports: BTreeMap<String, Segments>,
    names: BTreeSet<Segments>,
    children: Vec<(Segments, PathBuf)>,
    folder: PathBuf,
    owns_folder: bool,
}

impl Reader {
    fn note(&mut self, path: Segments) {
        let whole = match path.first().and_then(|first| self.imports.get(first)) {
            Some(import) if path.len() > 1 => {
                let mut whole = import.clone();
                whole.extend_from_slice(&path[1..]);
                whole
            }
            _ => path,
        };
        self.names.insert(rooted(&self.module, whole));
    }

    /// Finds paths in the text of a macro call's tokens, which `syn` does not parse.
    fn note_tokens(&mut self, tokens: &impl ToString) {
        let text = tokens.to_string().replace('$', " ");
        let text = text.replace(" ::", "::").replace(":: ", "::");
        let parts = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        for part in parts.filter(|part| part.contains("::")) {
            let path: Segments = part.split("::").map(str::to_owned).collect();
            if path.iter().all(|segment| !segment.is_empty()) {
                self.note(path);
            }
        }
    }
}

/// Expands `super`, `self` and the name of the crate, as seen from this module.
fn rooted(module: &[String], path: Segments) -> Segments {
    let mut at = module.to_vec();
    let mut rest = path.as_slice();
    let relative = matches!(path.first().map(String::as_str), Some("super" | "self"));
    while let Some(first) = rest.first().filter(|_| relative) {
        match first.as_str() {
            "super" => drop(at.pop()),
            "self" => {}
            _ => break,
        }
        rest = &rest[1..];
    }
    match path.first().map(String::as_str) {
        Some("super" | "self") => std::iter::once("crate".to_owned())
            .chain(at)
            .chain(rest.iter().cloned())
            .collect(),
        Some("stacktoken") => below(&["crate"], &path),
        Some("stacktoken_core") => below(&["crate", "core"], &path),
        Some("stacktoken_client") => below(&["crate", "client"], &path),
        Some("crate")
            if module
                .first()
                .is_some_and(|own| CRATES.contains(&own.as_str())) =>
        {
            below(&["crate", &module[0]], &path)
        }
        _ => path,
    }
}

/// Replaces the first segment of `path` with `beginning`.
fn below(beginning: &[&str], path: &[String]) -> Segments {
    let beginning = beginning.iter().map(|part| (*part).to_owned());
    beginning.chain(path.iter().skip(1).cloned()).collect()
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        self.module.push(name.clone());
        if item.content.is_none() {
            let elsewhere = item.attrs.iter().find_map(path_attribute);
            let place = match elsewhere {
                Some(file) => self.folder.join(file),
                None if self.owns_folder => self.folder.join(format!("{name}.rs")),
                None => {
                    let own = self.module[self.module.len() - 2].clone();
                    self.folder.join(own).join(format!("{name}.rs"))
                }
            };
            self.children.push((self.module.clone(), place));
        }
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut found = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut |path, _| found.push(path));
        for path in found {
            self.names.insert(rooted(&self.module, path));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter();
        self.note(segments.map(|part| part.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.note_tokens(&called.tokens);
        visit::visit_macro(self, called);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.note_tokens(&list.tokens);
        visit::visit_meta_list(self, list);
    }
}

fn path_attribute(attribute: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else {
        return None;
    };
    match &pair.value {
        syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(text),
            ..
        }) if pair.path.is_ident("path") => Some(text.value()),
        _ => None,
    }
}
