//! Whether a device may be written to. Owns the refusals; never writes.

use anyhow::{bail, ensure};

use super::arguments::DeviceArgs;
use crate::cli::offline;

/// Refuses unless flags say that the contents of the device may be lost.
pub(super) fn ask(arguments: &DeviceArgs) -> anyhow::Result<()> {
    let path = arguments.path.display();
    let survey = offline::survey(&offline::claim(&arguments.path)?)?;
    if let Some(contents) = survey.contents
        && !arguments.force
    {
        bail!("{path} holds {contents}; nothing was changed. If it may be lost, add --force");
    }
    ensure!(
        arguments.yes,
        "--write would destroy everything on {path}; nothing was changed. If it may be lost, \
         add --yes"
    );
    Ok(())
}
