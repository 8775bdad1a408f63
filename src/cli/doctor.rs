//! `darkroom doctor`: what a person reads who asks whether all is well here.

use super::CliError;
use crate::{
    app::{State, examine},
    config::{ConfigError, Settings},
};
use std::io::Write;

pub(super) fn run(settings: Result<Settings, ConfigError>, json: bool) -> Result<(), CliError> {
    let checks = examine(settings);
    let mut out = std::io::stdout().lock();
    if json {
        let checks = checks.iter().map(|check| {
            serde_json::json!({
                "check": check.name,
                "state": check.state.name(),
                "found": check.found,
                "remedy": check.remedy,
            })
        });
        let all = serde_json::Value::Array(checks.collect());
        writeln!(out, "{all:#}").map_err(super::stdout)?;
    } else {
        for check in &checks {
            let state = check.state.name();
            writeln!(out, "{state:4}  {:13}  {}", check.name, check.found)
                .map_err(super::stdout)?;
            if let Some(remedy) = &check.remedy {
                writeln!(out, "{:19}  -> {remedy}", "").map_err(super::stdout)?;
            }
        }
    }
    match checks.iter().filter(|check| check.state == State::Bad).count() {
        0 => Ok(()),
        bad => Err(CliError::Unwell(bad)),
    }
}
