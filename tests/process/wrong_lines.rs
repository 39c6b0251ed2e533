//! Tests invalid command lines as users write them. Each prints one line on standard error, which
//! names the setting and the fix, and nothing on standard output.

use std::process::Stdio;

use crate::program::{folder, program, text};

const KEY: &str = "blt00c0ffee00c0ffee";
const UID: &str = "019ecbf1-3c52-7a7d-9be6-6e0a5f2d7c11";

/// The invalid lines. The file explains its format.
const TABLE: &str = include_str!("../data/wrong_lines.txt");

/// A command line, and the texts that its error must contain.
type Row = (&'static str, Vec<&'static str>);

/// Returns the rows in one section of the table.
fn rows(section: &str) -> Vec<Row> {
    let (_, rest) = TABLE.split_once(&format!("## {section}\n")).unwrap();
    let rest = rest.split("\n## ").next().unwrap();
    let rows = rest.lines().filter(|line| !line.is_empty());
    rows.map(|row| {
        let (line, expected) = row.split_once(" => ").unwrap();
        (line, expected.split(" & ").collect())
    })
    .collect()
}

/// The output and the exit code of a command.
#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    output: String,
    error: String,
}

fn ask(line: &str) -> Answer {
    let mut command = program();
    let is_variable = |word: &&str| word.contains('=') && !word.starts_with('-');
    let words: Vec<_> = line.split(' ').collect();
    let variables = words.iter().copied().take_while(is_variable);
    let count = variables.clone().count();
    command.envs(variables.filter_map(|word| word.split_once('=')));
    for word in &words[count..] {
        let word = match *word {
            "''" => "",
            "KEY" => KEY,
            "UID" => UID,
            word => word,
        };
        command.arg(word.replace('~', " "));
    }
    let folder = folder();
    command.current_dir(folder.path()).stdin(Stdio::null());
    let done = command.output().unwrap();
    Answer {
        code: done.status.code(),
        output: text(&done.stdout),
        error: text(&done.stderr),
    }
}

fn check(section: &str) {
    for (line, expected) in rows(section) {
        let answer = ask(line);
        assert_eq!(answer.code, Some(2), "{line}: {answer:?}");
        assert_eq!(answer.output, "", "{line}: {answer:?}");
        let error = &answer.error;
        assert_eq!(error.lines().count(), 1, "{line}: {error}");
        assert!(error.starts_with("stacktoken: "), "{line}: {error}");
        for part in expected {
            let part = part.replace("UID'", &format!("{UID}'"));
            assert!(error.contains(&part), "{line}: no {part} in {error}");
        }
    }
}

#[test]
fn a_wrong_command_is_answered_in_one_line_with_the_cure() {
    check("commands");
}

#[test]
fn a_wrong_setting_of_the_server_is_answered_in_one_line_with_the_cure() {
    check("settings of the server");
}

#[test]
fn a_wrong_flag_of_a_client_command_is_answered_in_one_line_with_the_cure() {
    check("client commands");
}

#[test]
fn the_table_has_at_least_130_wrong_lines_and_none_twice() {
    let sections = ["commands", "settings of the server", "client commands"];
    let lines: Vec<_> = sections
        .into_iter()
        .flat_map(rows)
        .map(|(line, _)| line)
        .collect();
    let distinct: std::collections::BTreeSet<_> = lines.iter().collect();
    assert_eq!(distinct.len(), lines.len());
    assert!(lines.len() >= 130, "{}", lines.len());
    assert_eq!(
        TABLE.matches(" => ").count(),
        lines.len() + 1,
        "no row is lost"
    );
}
