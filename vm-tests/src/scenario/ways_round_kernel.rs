use crate::harness::Test;
use anyhow::Result;
pub(super) fn run(_test: &mut Test) -> Result<()> {
    Ok(())
}
