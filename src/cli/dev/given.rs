//! Records the settings with which `dev` was started on its data folder. If the settings differ
//! from those of the last start, tokens in the folder may behave differently, so each difference is
//! reported.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use clap::{ArgMatches, Command, CommandFactory as _, parser::ValueSource};

use super::write_private;
use crate::cli::Cli;

/// Name of the file in the data folder.
const FILE: &str = "settings.json";
/// Settings that do not affect the data in the folder, so they may differ between starts.
const OF_ONE_START: [&str; 6] = [
    "data-dir",
    "listen",
    "admin-listen",
    "http-listen",
    "http-public-url",
    "ready-file",
];

/// The values of the settings that flags or variables set, by the name of the flag.
pub type Given = BTreeMap<String, String>;

/// Returns the settings that flags or variables set, without settings that may contain a
/// credential.
pub fn given(matches: &ArgMatches) -> Given {
    let cli = Cli::command();
    let dev = cli.find_subcommand("dev").map(Command::get_arguments);
    let settings = dev.into_iter().flatten();
    let settings = settings.filter(|setting| !setting.is_hide_env_values_set());
    settings
        .filter_map(|setting| {
            let flag = setting.get_long()?;
            let id = setting.get_id().as_str();
            let is_default = [None, Some(ValueSource::DefaultValue)];
            if OF_ONE_START.contains(&flag) || is_default.contains(&matches.value_source(id)) {
                return None;
            }
            let values = matches.get_raw(id)?;
            let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
            Some((format!("--{flag}"), values.join(" ")))
        })
        .collect()
}

/// Returns a line that lists the settings that differ from those of the last start with this
/// folder. Returns `None` if none differs or the folder is new. Saves the settings for the next
/// start.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn changes(data_dir: &Path, given: &Given) -> anyhow::Result<Option<String>> {
    let file = data_dir.join(FILE);
    let before = fs::read_to_string(&file).ok();
    let before = before.and_then(|text| serde_json::from_str::<Given>(&text).ok());
    write_private(&file, &format!("{:#}\n", serde_json::to_value(given)?))?;
    let changed = before.map(|before| differences(&before, given));
    let changed = changed.filter(|changed| !changed.is_empty());
    Ok(changed.map(|changed| {
        let folder = data_dir.display();
        let changed = changed.join(", ");
        format!("--data-dir {folder} was last used with other settings: {changed}")
    }))
}

fn differences(before: &Given, now: &Given) -> Vec<String> {
    let flags: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    let differ = flags
        .into_iter()
        .filter(|flag| before.get(*flag) != now.get(*flag));
    let shown = |value: Option<&String>| value.map_or("not set", String::as_str).to_owned();
    differ
        .map(|flag| {
            let (then, now) = (shown(before.get(flag)), shown(now.get(flag)));
            format!("{flag} (then {then}, now {now})")
        })
        .collect()
}
