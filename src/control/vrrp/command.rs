//! Commands of the file: started without a shell, heard of by their exit code alone.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// Runs a command to its end; one that takes longer than `longest` is killed. The error says why it is no success.
pub(super) async fn run(command: &[String], longest: Duration) -> Result<(), String> {
    let (program, arguments) = command.split_first().ok_or("no program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    match timeout(longest, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(status.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no end within {longest:?}")),
    }
}
