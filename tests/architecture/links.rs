//! Checks that every link in a document to a file of the repository or to a heading has a target.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use crate::require_none;

/// Folders whose Markdown files are checked, in addition to those of the root.
const FOLDERS: &[&str] = &["docs", "docs/clients", "helm"];

fn documents() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = FOLDERS.iter().map(|folder| root.join(folder));
    let mut found = BTreeMap::new();
    for folder in folders.chain([root.to_owned()]) {
        let entries = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        for file in entries.filter(|file| file.extension().is_some_and(|kind| kind == "md")) {
            let text = fs::read_to_string(&file).unwrap();
            found.insert(file.strip_prefix(root).unwrap().to_owned(), text);
        }
    }
    found
}

/// Returns the lines outside fenced code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Returns the anchors that a link to this document can use: the anchors that Markdown renderers
/// generate from headings, and explicit ones.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let mut found: BTreeSet<_> = headings
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect();
    let written = text.split("<a id=\"").skip(1);
    found.extend(written.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    found
}

fn anchor(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || " _-".contains(*letter);
    let words = heading.trim().to_lowercase();
    words
        .chars()
        .filter(kept)
        .collect::<String>()
        .replace(' ', "-")
}

/// Returns the link targets that are within the repository. Links in code are ignored.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        let plain: Vec<_> = line.split('`').step_by(2).collect();
        let plain = plain.join("``");
        let targets = plain
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        let inner = targets.filter(|target| !target.contains("://") && !target.contains(' '));
        found.extend(inner.map(ToOwned::to_owned));
    }
    found
}

/// Returns the path that a link leads to, relative to the root of the repository.
fn target(from: &Path, link: &str) -> PathBuf {
    let joined = from.parent().unwrap().join(link);
    joined.components().fold(PathBuf::new(), |mut path, part| {
        if part == Component::ParentDir {
            path.pop();
        } else {
            path.push(part);
        }
        path
    })
}

fn dead(from: &Path, link: &str, all: &BTreeMap<PathBuf, String>) -> bool {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let path = if file.is_empty() {
        from.to_owned()
    } else {
        target(from, file)
    };
    let exists = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path).exists();
    let headed = all
        .get(&path)
        .is_none_or(|text| anchors(text).contains(heading));
    !exists || (!heading.is_empty() && !headed)
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let all = documents();
    let links = all
        .iter()
        .flat_map(|(from, text)| links(text).into_iter().map(move |link| (from, link)));
    let dead = links.filter(|(from, link)| dead(from, link, &all));
    require_none(dead.map(|(from, link)| format!("{}: {link}", from.display())));
}

#[test]
fn a_dead_link_is_reported() {
    let from = PathBuf::from("docs/rules.md");
    let text = "# One `two` (three)\n[b](../README.md) [c](#one-two-three) `[d](e.md)`\n```\n[f](g.md)\n# No\n```\n<a id=\"own\"></a>";
    assert_eq!(links(text), ["../README.md", "#one-two-three"]);
    let all = BTreeMap::from([(from.clone(), text.to_owned())]);
    for alive in ["../README.md", "#one-two-three", "#own", "../src"] {
        assert!(!dead(&from, alive, &all), "{alive}");
    }
    for gone in ["b.md", "#no", "../README"] {
        assert!(dead(&from, gone, &all), "{gone}");
    }
}
