//! Reads the blocks of a page. The pages have so little YAML that its lines are read as they are.

use std::{fs, path::Path};

use stacktoken::domain::federation::Provider;

/// The sections of the document, in its order.
const TITLES: [&str; 6] = [
    "GitHub Actions",
    "GitLab CI/CD",
    "Kubernetes",
    "Buildkite",
    "SPIFFE",
    "Any other issuer",
];

/// A page: three blocks to paste.
pub struct Page {
    pub title: &'static str,
    entry: String,
    pub owner: String,
    pub workload: Block,
}

impl Page {
    pub fn all() -> Vec<Self> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/federation.md");
        let text = fs::read_to_string(file).unwrap();
        let page = |title: &'static str| {
            let section = text.split(&format!("\n## {title}\n")).nth(1).unwrap();
            let section = section.split("\n## ").next().unwrap();
            let blocks = section.split("```").skip(1).step_by(2);
            let blocks: Vec<_> = blocks
                .map(|block| block.split_once('\n').unwrap())
                .collect();
            let [("toml", entry), ("sh", owner), (_, workload)] = blocks[..] else {
                panic!("{title} must have three blocks: {blocks:?}");
            };
            Self {
                title,
                entry: entry.to_owned(),
                owner: owner.to_owned(),
                workload: Block(workload.to_owned()),
            }
        };
        TITLES.map(page).into()
    }

    pub fn provider(&self) -> Provider {
        Provider::from_name(&self.value("provider")).unwrap()
    }

    /// Returns the entry, with the address of the keys replaced by one on this machine, over which
    /// there is no TLS, and with the file of the credential in the folder of the server. The rest is
    /// as it is written, except that a list of stacks is left out: the stack of the test has a key
    /// of its own.
    pub fn entry_at(&self, address: &str) -> String {
        let lines = self.entry.lines().filter_map(|line| {
            let key = line.split(' ').next().unwrap();
            match key {
                "jwks_ca" | "stacks" => None,
                "jwks_url" => {
                    let path = self.value("jwks_url");
                    let path = path.splitn(4, '/').nth(3).unwrap();
                    Some(format!("jwks_url = \"http://{address}/{path}\""))
                }
                "jwks_token_file" => Some("jwks_token_file = \"credential\"".to_owned()),
                _ => Some(line.to_owned()),
            }
        });
        let lines: Vec<_> = lines.collect();
        format!("\n{}\n", lines.join("\n"))
    }

    fn value(&self, key: &str) -> String {
        let mut lines = self.entry.lines();
        let line = lines.find(|line| line.split(' ').next() == Some(key));
        line.unwrap().split('"').nth(1).unwrap().to_owned()
    }
}

/// A block of a page.
pub struct Block(String);

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

impl Block {
    pub fn text(&self) -> String {
        self.0.clone()
    }

    /// Returns the rest of the line after this text; only its first word, unless it begins with `'`.
    pub fn after(&self, text: &str) -> String {
        let rest = self.0.split_once(text).unwrap().1;
        let line = rest.lines().next().unwrap();
        if text.ends_with('\'') {
            return line.to_owned();
        }
        line.split(' ').next().unwrap().to_owned()
    }

    /// Returns the lines below a line, which are indented more.
    fn below(&self, head: &str) -> Vec<&str> {
        let mut lines = self.0.lines();
        let head = lines.find(|line| line.trim() == head).unwrap();
        let within = lines.take_while(|line| indent(line) > indent(head));
        within.collect()
    }

    /// Returns the scalars of a mapping.
    pub fn mapping(&self, head: &str) -> Vec<(String, String)> {
        let pairs = self.below(head).into_iter();
        let pairs = pairs.map(|line| line.trim().split_once(": ").unwrap());
        pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// Returns the text of a literal block.
    pub fn literal(&self, head: &str) -> String {
        let lines = self.below(head);
        let cut = indent(lines[0]);
        let lines: Vec<_> = lines.iter().map(|line| &line[cut..]).collect();
        lines.join("\n")
    }

    /// Returns the items of a list.
    pub fn items(&self, head: &str) -> Vec<String> {
        let items = self.below(head).into_iter();
        items
            .map(|line| line.trim().strip_prefix("- ").unwrap().to_owned())
            .collect()
    }

    /// Returns the pairs of a list of variables, as a pod has them.
    pub fn inline_mapping(&self) -> Vec<(String, String)> {
        let lines = self.0.lines().filter_map(|line| {
            let pair = line.trim().strip_prefix("- { name: ")?.strip_suffix(" }")?;
            pair.split_once(", value: ")
        });
        lines
            .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
            .collect()
    }
}
