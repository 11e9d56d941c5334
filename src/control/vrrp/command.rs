//! Commands of the file: started without a shell, heard of by their exit code alone.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::time::timeout;

/// Runs a command to its end; one that takes longer than `longest` is killed, with what it has started. The error says
/// why it is no success.
pub(super) async fn run(command: &[String], longest: Duration) -> Result<(), String> {
    let (program, arguments) = command.split_first().ok_or("no program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    match timeout(longest, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(status.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            // Also what it has started itself. It may have ended just now.
            if let Some(group) = group {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            let _ = child.wait().await;
            Err(format!("no end within {longest:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_takes_too_long_ends_with_what_it_has_started() {
        let name = format!("ringway-command-{}", std::process::id());
        let pid = std::env::temp_dir().join(name);
        let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
        let line = ["/bin/sh", "-c", &script].map(str::to_owned);
        let ended = run(&line, Duration::from_secs(1)).await;
        assert_eq!(ended, Err("no end within 1s".to_owned()));
        let text = std::fs::read_to_string(&pid).expect("the shell has written it");
        std::fs::remove_file(&pid).expect("it is ours");
        let stat = format!("/proc/{}/stat", text.trim());
        // A process whose parent is gone may be a zombie for as long as nobody collects it.
        let is_over = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        for _ in 0..100 {
            if is_over() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it goes on");
    }

    #[tokio::test]
    async fn how_it_ended_is_told() {
        let run = async |script: &str| {
            let line = ["/bin/sh", "-c", script].map(str::to_owned);
            run(&line, Duration::from_secs(10)).await
        };
        assert_eq!(run("exit 0").await, Ok(()));
        assert_eq!(run("exit 3").await, Err("exit status: 3".to_owned()));
        let none = super::run(&["/absent/command".to_owned()], Duration::from_secs(1)).await;
        assert!(none.is_err_and(|why| why.contains("No such file")));
    }
}
