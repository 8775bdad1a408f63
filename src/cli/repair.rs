//! `darkroom repair`: what a person types when the server says that its store cannot be read.

use super::CliError;
use crate::{app::repair, config::Settings};

pub(super) fn run(settings: &Settings) -> Result<(), CliError> {
    let report = repair(settings)?;
    let store = settings.store.path.display();
    let Some(old) = report.database else {
        eprintln!("the store in {store} opens; nothing had to be rebuilt");
        return Ok(());
    };
    let pictures = match report.pictures {
        1 => "1 picture".to_owned(),
        many => format!("{many} pictures"),
    };
    eprintln!(
        "the store in {store} opens again with {pictures}; what lay in the old database alone, such \
         as jobs, is gone from the list: that database is kept in {}",
        old.display(),
    );
    for file in report.damaged {
        eprintln!("damaged and put aside: {}", file.display());
    }
    Ok(())
}
