//! Finds misspelt settings: variables whose names begin as Hark's do and that it doesn't know. Asked by `main` and `doctor`.

use super::ServeConfig;
use clap::{Args, Command};
use std::{collections::BTreeSet, env};

/// How the names of Hark's settings begin.
const PREFIX: &str = "HARK_";
/// Those that have no flag.
const WITHOUT_FLAG: [&str; 3] = ["HARK_BASE_PATH", "HARK_OPENAI_KEY", "HARK_OPENAI_KEY_FILE"];
/// What scripts/env exports, after the prefix: where the tools of the tests are.
const TOOLS: &str = "TOOLS";
/// How the name of a setting ends that names a file with a secret; the secret's own variable has the name without it.
const FILE: &str = "_FILE";

/// A sentence, for operators, about each variable of the environment that looks like a setting and is none.
#[must_use]
pub fn unknown_settings() -> Vec<String> {
    unknown(env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        Some((name, value.to_string_lossy().into_owned()))
    }))
}

fn unknown(variables: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let known = known();
    let unknown: BTreeSet<String> = variables
        .filter(|(name, value)| name.starts_with(PREFIX) && !known.contains(name) && !is_of_a_service(name, value))
        .map(|(name, _)| name)
        .collect();
    unknown.iter().map(|name| sentence(name, &known)).collect()
}

/// The names of all settings.
fn known() -> BTreeSet<String> {
    let command = ServeConfig::augment_args(Command::new("hark"));
    let flags = command.get_arguments().filter_map(|flag| Some(flag.get_env()?.to_str()?.to_owned()));
    let mut known: BTreeSet<String> = flags.collect();
    known.extend(WITHOUT_FLAG.map(str::to_owned));
    known.insert(format!("{PREFIX}{TOOLS}"));
    let secrets: Vec<String> = known.iter().filter_map(|name| name.strip_suffix(FILE)).map(str::to_owned).collect();
    known.extend(secrets);
    known
}

/// Whether Kubernetes has set a variable: it gives every container the addresses of all services, under their names, and one of
/// these may be called `hark`.
fn is_of_a_service(name: &str, value: &str) -> bool {
    let port = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| port(rest))
        || ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

fn sentence(name: &str, known: &BTreeSet<String>) -> String {
    let nearest = known.iter().map(|known| (distance(name, known), known)).min();
    // With more differences it is another word.
    let misspelt = nearest.filter(|(distance, _)| *distance * 3 <= name.len() - PREFIX.len());
    let advice = match misspelt {
        Some((_, known)) => format!("is {known} meant?"),
        None => "'hark serve --help' lists all".to_owned(),
    };
    format!("{name} is set, which is no setting of Hark and changes nothing: {advice}")
}

/// How many letters have to be changed, added or removed to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // The distances from what has been read of `a` to each beginning of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of variables, which are named without the prefix.
    fn said(variables: &[(&str, &str)]) -> Vec<String> {
        unknown(variables.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned())))
    }

    #[test]
    fn a_misspelt_setting_is_named_with_the_one_that_is_meant() {
        for (name, meant) in [
            ("TRUSTED_PROXY", "TRUSTED_PROXIES"),
            ("KEEP_DAY", "KEEP_DAYS"),
            ("WORKER", "WORKERS"),
            ("SECRETS", "SECRET"),
            ("OPENAI_KEYS", "OPENAI_KEY"),
        ] {
            let sentence = format!(
                "{PREFIX}{name} is set, which is no setting of Hark and changes nothing: is {PREFIX}{meant} meant?"
            );
            assert_eq!(said(&[(name, "x")]), [sentence]);
        }
        for name in ["COLOUR", "URL", ""] {
            let sentences = said(&[(name, "x")]);
            assert!(sentences.len() == 1 && sentences[0].ends_with("'hark serve --help' lists all"), "{sentences:?}");
        }
    }

    #[test]
    fn settings_and_what_others_set_are_passed_over() {
        let none: [&str; 0] = [];
        for name in known() {
            assert_eq!(unknown([(name, "x".to_owned())].into_iter()), none);
        }
        // Secrets have no flag, and a service of Kubernetes may be called hark.
        let others = [
            ("SECRET", "x"),
            ("WORKER_TOKEN", "x"),
            ("PORT", "tcp://10.0.0.1:80"),
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT_HTTP", "80"),
            ("PORT_80_TCP_ADDR", "10.0.0.1"),
            ("WEB_PORT_80_TCP_PROTO", "tcp"),
        ];
        assert_eq!(said(&others), none);
        assert_eq!(unknown([("PATH".to_owned(), "/bin".to_owned())].into_iter()), none);
    }

    #[test]
    fn distances_between_names() {
        for (a, b, expected) in [("", "", 0), ("", "ab", 2), ("ab", "", 2), ("abc", "axc", 1), ("proxy", "proxies", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
