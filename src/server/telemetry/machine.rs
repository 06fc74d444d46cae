//! What the process uses and what there is: processor time, memory, descriptors, disks. Read when the metrics are asked for, by
//! `scrape`; the memory limit and the processors are for others too.

use crate::server::space::Disk;
use metrics::gauge;
use metrics_process::Collector;
use std::{fs, path::Path, sync::LazyLock};

/// Where the kernel shows control groups.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// Sets the gauges of the process, and those of these disks, each with the name of its folder. Reads files, so it may block.
pub fn measure(disks: &[(&'static str, Disk)]) {
    static PROCESS: LazyLock<Collector> = LazyLock::new(Collector::default);
    PROCESS.collect();
    gauge!("hark_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("hark_memory_limit_bytes").set(memory_limit() as f64);
    gauge!("hark_cpus").set(processors() as f64);
    for (name, disk) in disks {
        // A folder that is away keeps its last values: `readyz` tells that it is away.
        if let Ok(space) = disk.space() {
            gauge!("hark_disk_free_bytes", "folder" => *name).set(space.free as f64);
            gauge!("hark_disk_size_bytes", "folder" => *name).set(space.size as f64);
        }
    }
}

/// The processors that this process may use, whole ones.
#[must_use]
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// The bytes of memory that this process may use: the lowest limit of its control groups, or the machine's memory.
#[must_use]
pub fn memory_limit() -> u64 {
    let machine = rustix::system::sysinfo();
    let machine = (machine.totalram as u64).saturating_mul(machine.mem_unit.into());
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    group_limit(Path::new(CONTROL_GROUPS), &groups).map_or(machine, |limit| limit.min(machine))
}

/// The lowest memory limit of the control groups in `groups`, which is what `/proc/self/cgroup` says, and of those above
/// them. Of version 2 of control groups, or of version 1 with its folder for each resource.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (resources, path) = line.split_once(':')?.1.split_once(':')?;
        let (root, file) = match resources {
            "" => (root.to_owned(), "memory.max"),
            "memory" => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let own = root.join(path.trim_start_matches('/'));
        // Within a container the path may be that of the machine, which isn't there; its own is then the root.
        let above = own.ancestors().take_while(|group| group.starts_with(&root));
        above.filter_map(|group| fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()).min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_of_the_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/memory.max", "3000000\n");
        write("a/b/memory.max", "max\n");
        write("memory/c/memory.limit_in_bytes", "5000000\n");
        let limit = |groups: &str| group_limit(root.path(), groups);
        assert_eq!(limit("0::/a/b\n"), Some(3_000_000), "that of the group above");
        assert_eq!(limit("4:cpu:/x\n7:memory:/c\n"), Some(5_000_000));
        assert_eq!(limit("0::/elsewhere/in/the/machine\n"), None);
        write("memory.max", "2000000\n");
        assert_eq!(limit("0::/elsewhere/in/the/machine\n"), Some(2_000_000), "the root of a container");
        assert_eq!(limit(""), None);
    }

    #[test]
    fn this_process_has_memory_and_processors() {
        assert!(memory_limit() > 64 << 20);
        assert!(processors() > 0);
    }
}
