//! The flags of all settings, made from [`crate::config::schema::KEYS`], with their environment twins.

use std::marker::PhantomData;
use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::schema::{Flag, KEYS, Key};
use crate::config::{Config, ConfigErrors, Origin, Overrides};

/// `--config` and every setting that has a flag.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    /// The YAML file.
    pub(super) file: Option<PathBuf>,
    /// What flags and environment say.
    pub(super) overrides: Overrides,
}

const CONFIG: Flag = Flag { name: "config", env: "MOUNTWARDEN_CONFIG", value: "FILE", hidden: false };

/// What Kubernetes manifests call the node's name by custom (`fieldRef: spec.nodeName`).
const NODE_NAME: &str = "NODE_NAME";

pub(super) const HEADING: &str = "Settings (--log-level is MOUNTWARDEN_LOG_LEVEL in the environment, and so on)";

/// Columns of the flags' explanations; the longest flag needs 32 beside it.
const HELP_COLUMNS: usize = 66;

impl Settings {
    pub(super) fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(self.file.as_deref(), &self.overrides)
    }
}

/// Which settings a command has as flags. What it does not use is not listed: a flag that does nothing misleads.
pub(super) trait Choice {
    /// Names of the settings, as in [`KEYS`]; each has a flag.
    const NAMES: &'static [&'static str];
    /// What stands above them in `--help`.
    const HEADING: Option<&'static str> = None;
    /// The agent's other flags are taken too, and not listed: one command line may serve both.
    const TAKES_ALL: bool = false;
}

fn takes<C: Choice>(key: &Key) -> bool {
    C::TAKES_ALL || C::NAMES.contains(&key.name)
}

/// `--config` and the settings of a [`Choice`]. The file and the environment may set the others too: they are shared.
pub(super) struct Chosen<C>(Settings, PhantomData<C>);

impl<C> Chosen<C> {
    pub(super) fn load(&self) -> Result<Config, ConfigErrors> {
        self.0.load()
    }
}

/// The `--config` flag.
fn config_flag() -> Arg {
    let arg = Arg::new(CONFIG.name).long(CONFIG.name).value_name(CONFIG.value).help("The configuration, a YAML file");
    with_twin(arg, CONFIG.env).value_parser(clap::value_parser!(PathBuf))
}

/// The flag of one setting.
fn setting_flag(key: &'static Key, flag: Flag) -> Arg {
    let field = key.field;
    let check = move |text: &str| field.check(text).map(|()| text.to_owned());
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .value_name(flag.value)
        .help(help(key))
        .hide(flag.hidden)
        .value_parser(ValueParser::new(check))
        .action(if field.is_list() { ArgAction::Append } else { ArgAction::Set });
    with_twin(arg, flag.env)
}

/// What it does and its default, in lines that leave room for the flags beside them.
fn help(key: &Key) -> String {
    let default = key.field.yaml(&Config::default());
    let note =
        if key.field.is_list() { "repeatable, comma separated".to_owned() } else { format!("default: {default}") };
    super::text::wrap(&format!("{} [{note}]", key.help.trim_end_matches('.')), HELP_COLUMNS).join("\n")
}

/// Gives the flag its variable, unless that is set to nothing: manifests often leave a variable empty.
fn with_twin(arg: Arg, env: &'static str) -> Arg {
    match std::env::var_os(env) {
        Some(value) if value.is_empty() => arg,
        _ => arg.env(env).hide_env(true),
    }
}

/// Moves what the command line and the environment say about `key` into `overrides`.
fn take(overrides: &mut Overrides, matches: &mut ArgMatches, key: &'static Key, flag: Flag) {
    let origin = match matches.value_source(flag.name) {
        Some(ValueSource::CommandLine) => Origin::Flag(flag.name),
        Some(ValueSource::EnvVariable) => Origin::Env(flag.env),
        _ => return,
    };
    let texts = matches.remove_many::<String>(flag.name).into_iter().flatten().collect();
    overrides.set(key, origin, texts);
}

/// The settings that have a flag and that `has` names.
fn flagged(has: impl Fn(&Key) -> bool) -> impl Iterator<Item = (&'static Key, Flag)> {
    KEYS.iter().filter(move |key| has(key)).filter_map(|key| key.flag.map(|flag| (key, flag)))
}

fn augment(command: Command, has: impl Fn(&Key) -> bool, heading: Option<&'static str>) -> Command {
    let command = command.arg(config_flag());
    flagged(has).fold(command, |command, (key, flag)| command.arg(setting_flag(key, flag).help_heading(heading)))
}

fn read(matches: &mut ArgMatches, has: impl Fn(&Key) -> bool) -> Settings {
    let mut settings = Settings { file: matches.remove_one(CONFIG.name), overrides: Overrides::default() };
    for (key, flag) in flagged(has) {
        take(&mut settings.overrides, matches, key, flag);
        let by_custom = (key.name == "node_name" && !settings.overrides.has(key.name))
            .then(|| std::env::var(NODE_NAME).ok())
            .flatten();
        if let Some(name) = by_custom.filter(|name| !name.is_empty()) {
            settings.overrides.set(key, Origin::Env(NODE_NAME), vec![name]);
        }
    }
    settings
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        augment(command, |_| true, Some(HEADING))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        Ok(read(matches, |_| true))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<C: Choice> Args for Chosen<C> {
    fn augment_args(command: Command) -> Command {
        let command = augment(command, takes::<C>, C::HEADING);
        let unused = flagged(|key| takes::<C>(key) && !C::NAMES.contains(&key.name));
        unused.fold(command, |command, (_, flag)| command.mut_arg(flag.name, |arg| arg.hide(true)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<C: Choice> FromArgMatches for Chosen<C> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        Ok(Chosen(read(matches, takes::<C>), PhantomData))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
