//! What the cgroups of this process allow, version 2 and version 1. A limit of any level binds, so all levels from the
//! process's own up to the top are read; the tightest counts.

use super::{Files, Quota, two_words};

const MOUNT: &str = "sys/fs/cgroup";
/// Version 1 writes "none" as the greatest number of whole pages.
const MEMORY_NONE: u64 = 1 << 62;

/// Thousandths of a CPU.
pub(super) fn cpu_quota(files: &Files) -> Quota {
    tightest(files, "cpu", |folder| {
        if let Some(text) = files.text(&format!("{folder}/cpu.max")) {
            return Some(thousandths(two_words::<String>(&text)?));
        }
        let quota = files.text(&format!("{folder}/cpu.cfs_quota_us"))?;
        let period = files.text(&format!("{folder}/cpu.cfs_period_us"))?;
        Some(thousandths((quota, period)))
    })
}

/// Bytes.
pub(super) fn memory_max(files: &Files) -> Quota {
    tightest(files, "memory", |folder| {
        let text = files
            .text(&format!("{folder}/memory.max"))
            .or_else(|| files.text(&format!("{folder}/memory.limit_in_bytes")))?;
        Some(match text.parse() {
            Ok(bytes) if bytes < MEMORY_NONE => Quota::At(bytes),
            Ok(_) | Err(_) => Quota::None,
        })
    })
}

/// "max" and -1 are none.
fn thousandths((quota, period): (String, String)) -> Quota {
    match (quota.parse::<u64>(), period.parse::<u64>()) {
        (Ok(quota), Ok(period)) if period > 0 => Quota::At(quota.saturating_mul(1000) / period),
        _ => Quota::None,
    }
}

/// `read` says what one folder allows, if it has such a file.
fn tightest(files: &Files, controller: &str, read: impl Fn(&str) -> Option<Quota>) -> Quota {
    let Some(own) = files.text("proc/self/cgroup") else {
        return Quota::Unknown;
    };
    let mut found = Quota::Unknown;
    for line in own.lines() {
        // "4:memory:/path" of version 1, "0::/path" of version 2.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let mount = match controllers {
            "" if files.path(MOUNT).join("cgroup.controllers").exists() => {
                // A level without the file has no limit.
                found = Quota::None;
                MOUNT.to_owned()
            }
            list if list.split(',').any(|name| name == controller) => {
                format!("{MOUNT}/{controller}")
            }
            _ => continue,
        };
        for level in levels(path) {
            if let Some(quota) = read(&format!("{mount}{level}")) {
                found = tighter(found, quota);
            }
        }
    }
    found
}

/// `/a/b`: `/a/b`, `/a` and the top. In a container the path may be one of the host and not exist; the top is its own.
fn levels(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path.trim_end_matches('/')), |path| {
        path.rfind('/').map(|end| &path[..end])
    })
}

fn tighter(one: Quota, other: Quota) -> Quota {
    match (one, other) {
        (Quota::At(one), Quota::At(other)) => Quota::At(one.min(other)),
        (Quota::At(limit), _) | (_, Quota::At(limit)) => Quota::At(limit),
        (Quota::None, _) | (_, Quota::None) => Quota::None,
        (Quota::Unknown, Quota::Unknown) => Quota::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// A root of these files, removed on drop.
    struct Root(PathBuf);

    impl Root {
        fn with(label: &str, files: &[(&str, &str)]) -> (Root, Files) {
            let name = format!("ringway-cgroup-{label}-{}", std::process::id());
            let root = std::env::temp_dir().join(name);
            for (name, text) in files {
                let path = root.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            let files = Files::below(&root);
            (Root(root), files)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_tightest_level_of_version_2_counts() {
        let (_root, files) = Root::with(
            "two",
            &[
                ("proc/self/cgroup", "0::/system.slice/ringway.service\n"),
                ("sys/fs/cgroup/cgroup.controllers", "cpu memory\n"),
                ("sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n"),
                (
                    "sys/fs/cgroup/system.slice/ringway.service/cpu.max",
                    "max 100000\n",
                ),
                (
                    "sys/fs/cgroup/system.slice/ringway.service/memory.max",
                    "1073741824\n",
                ),
            ],
        );
        assert_eq!(cpu_quota(&files), Quota::At(1500));
        assert_eq!(memory_max(&files), Quota::At(1 << 30));
    }

    #[test]
    fn version_2_without_files_has_no_limit() {
        let (_root, files) = Root::with(
            "none",
            &[
                ("proc/self/cgroup", "0::/\n"),
                ("sys/fs/cgroup/cgroup.controllers", ""),
            ],
        );
        assert_eq!(cpu_quota(&files), Quota::None);
        assert_eq!(memory_max(&files), Quota::None);
    }

    #[test]
    fn version_1_is_read_at_the_top_where_the_path_is_not_there() {
        let (_root, files) = Root::with(
            "one",
            &[
                (
                    "proc/self/cgroup",
                    "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n",
                ),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
                (
                    "sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712\n",
                ),
            ],
        );
        assert_eq!(cpu_quota(&files), Quota::At(500));
        assert_eq!(memory_max(&files), Quota::None);
    }
}
