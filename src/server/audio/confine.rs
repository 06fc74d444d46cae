//! The sandbox of a decoder, which it enters before it reads a byte of a stranger's file: limits of memory, processor
//! time, files, programs and the network. The layers overlap, in case one isn't available or has a hole. Called by
//! `child` in a process with one thread, because Landlock applies to the calling thread and what it starts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};
use rustix::fs::FileType;
use rustix::process::{Resource, Rlimit, Signal, getpriority_process, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// How much higher the niceness of decoders is than that of Hark itself, as for engines: streams and pages come first.
const NICENESS: i32 = 10;

/// Address space beyond the memory limit, in bytes: the allocator reserves it, and shared libraries are mapped into it.
/// It limits what doesn't count as data, such as shared mappings.
const ADDRESS_SPACE: u64 = 4 << 30;

/// The number of open files: the recording, the pipes, and the library that the loader is reading.
const FILES: u64 = 32;

/// x86-64 has a second set of system call numbers (x32), marked by this bit, and additional ones in this range.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;
#[cfg(target_arch = "x86_64")]
const X32_ONLY: std::ops::RangeInclusive<i64> = 512..=547;

/// How much a decoder may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Memory in bytes.
    pub(super) memory: u64,
    /// Processor time in seconds.
    pub(super) cpu_secs: u64,
}

/// What the process is about to run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role<'a> {
    /// The built-in decoders. They need only the file that is already open, and start nothing.
    BuiltIn,
    /// ffmpeg or ffprobe at this path, which this process is about to become.
    Program(&'a Path),
}

/// Applies all layers to this process and what it becomes. Returns the layers that this machine lacks, in words for the
/// log.
pub(super) fn confine(bounds: Bounds, role: Role<'_>) -> Vec<String> {
    let mut missing = Vec::new();
    // The name in a list of processes, which would otherwise be that of a file in /proc.
    let _ = rustix::thread::set_name(c"hark-decoder");
    let mut layer = |name: &str, applied: Result<(), String>| {
        if let Err(reason) = applied {
            missing.push(format!("{name} ({reason})"));
        }
    };
    let parent = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    layer("ending with its parent", parent.map_err(to_text));
    let renice = getpriority_process(None).and_then(|now| setpriority_process(None, now + NICENESS));
    layer("low priority", renice.map_err(to_text));
    // If the whole machine runs out of memory, the kernel ends a decoder before the server.
    layer("being ended first when memory runs out", fs::write("/proc/self/oom_score_adj", "1000").map_err(to_text));
    layer("limits of memory and time", set_limits(bounds).map_err(to_text));
    layer("no new privileges", rustix::thread::set_no_new_privs(true).map_err(to_text));
    // Matters where Hark runs as root, which could raise its limits again or load modules.
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    layer("no capabilities", rustix::thread::set_capabilities(None, sets).map_err(to_text));
    layer("Landlock", landlock(role));
    layer("seccomp", seccomp(role));
    missing
}

fn to_text(error: impl ToString) -> String {
    error.to_string()
}

fn set_limits(bounds: Bounds) -> rustix::io::Result<()> {
    let lower = |resource, soft: u64, hard: u64| {
        // Limits that Hark was started with may be lower.
        let ceiling = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        setrlimit(resource, Rlimit { current: Some(soft.min(ceiling)), maximum: Some(hard.min(ceiling)) })
    };
    let both = |resource, n| lower(resource, n, n);
    // Not only the address space, because the allocator reserves far more of it than it uses.
    both(Resource::Data, bounds.memory)?;
    both(Resource::As, bounds.memory.saturating_add(ADDRESS_SPACE))?;
    // At the soft limit the kernel sends SIGXCPU, which tells the parent why the decoder ended.
    lower(Resource::Cpu, bounds.cpu_secs, bounds.cpu_secs.saturating_add(1))?;
    both(Resource::Core, 0)?;
    both(Resource::Fsize, 0)?;
    both(Resource::Nofile, FILES)
    // The limit of processes per user is no use here: it counts the user's other processes, and doesn't apply to root.
    // The filter of system calls allows only threads.
}

/// Denies opening any file, except that ffmpeg may open the recording, its own program and its libraries. Denies all
/// writing.
fn landlock(role: Role<'_>) -> Result<(), String> {
    let newest = ABI::V6;
    let read = AccessFs::from_read(newest);
    let made = || -> Result<_, landlock::RulesetError> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(newest))?
            .handle_access(AccessNet::from_all(newest))?
            .scope(Scope::from_all(newest))?
            .create()?;
        if let Role::Program(program) = role {
            let stdin = io::stdin();
            // ffmpeg opens a recording again, by its descriptor. A pipe with samples is only read, and belongs to no file
            // system.
            if rustix::fs::fstat(&stdin)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
            {
                rules = rules.add_rule(allow_beneath(stdin.as_fd(), AccessFs::ReadFile))?;
            }
            for path in readable_paths(program) {
                let Ok(file) = File::open(&path) else { continue };
                let access = if path.is_dir() { read } else { read & AccessFs::from_file(newest) };
                rules = rules.add_rule(allow_beneath(file.as_fd(), access))?;
            }
        }
        rules.restrict_self()
    };
    match made().map_err(to_text)?.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced => Err("in part only: this kernel is older than 6.12".to_owned()),
        RulesetStatus::NotEnforced => Err("this kernel doesn't have it, or it is switched off".to_owned()),
    }
}

fn allow_beneath(file: BorrowedFd<'_>, access: impl Into<landlock::BitFlags<AccessFs>>) -> PathBeneath<BorrowedFd<'_>> {
    PathBeneath::new(file, access.into())
}

/// The paths that a program needs to start: itself, the loader, its libraries.
fn readable_paths(program: &Path) -> Vec<PathBuf> {
    const SYSTEM: [&str; 9] = [
        "/lib",
        "/lib32",
        "/lib64",
        "/usr/lib",
        "/usr/lib32",
        "/usr/lib64",
        "/usr/local/lib",
        "/nix/store",
        "/etc/ld.so.cache",
    ];
    let program = fs::canonicalize(program).unwrap_or_else(|_| program.to_owned());
    let mut paths: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    // Programs installed in a folder of their own often have their libraries in `lib` beside their folder.
    paths.extend(program.parent().and_then(Path::parent).map(|folder| folder.join("lib")));
    paths
        .extend(std::env::var_os("LD_LIBRARY_PATH").iter().flat_map(std::env::split_paths).filter(|p| p.is_absolute()));
    paths.extend(["/dev/null", "/dev/zero", "/dev/urandom"].map(PathBuf::from));
    paths.push(program);
    paths
}

/// Makes system calls fail that no decoder needs: those that reach other processes, the network, the kernel's keys and
/// settings, or files other than by opening them, and those that start processes. Threads are allowed.
fn seccomp(role: Role<'_>) -> Result<(), String> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(|_| "not on this processor".to_owned())?;
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|number| (*number, Vec::new())).collect();
    #[cfg(target_arch = "x86_64")]
    refused.extend(REFUSED_ON_X86.iter().map(|number| (*number, Vec::new())));
    if matches!(role, Role::BuiltIn) {
        refused.extend(REFUSED_TO_BUILT_IN.iter().map(|number| (*number, Vec::new())));
        #[cfg(target_arch = "x86_64")]
        refused.extend([libc::SYS_open, libc::SYS_creat].map(|number| (number, Vec::new())));
    }
    let no_thread = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(u64::from(libc::CLONE_THREAD.unsigned_abs())),
        0,
    );
    let no_thread = SeccompRule::new(vec![no_thread.map_err(to_text)?]).map_err(to_text)?;
    refused.insert(libc::SYS_clone, vec![no_thread]);
    // Limits may be read but not set.
    let sets = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0).map_err(to_text)?;
    refused.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![sets]).map_err(to_text)?]);
    // The C library tries the newer call first, whose flags a filter can't see, and falls back to the older one on
    // ENOSYS.
    let mut unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    #[cfg(target_arch = "x86_64")]
    {
        let hidden: Vec<i64> = refused.keys().chain(unknown.keys()).copied().chain(X32_ONLY).collect();
        refused.extend(hidden.into_iter().map(|number| (number | X32, Vec::new())));
        unknown.insert(libc::SYS_clone3, Vec::new());
    }
    for (rules, errno) in [(unknown, libc::ENOSYS), (refused, libc::EPERM)] {
        let action = SeccompAction::Errno(errno.unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).map_err(to_text)?;
        let program: BpfProgram = filter.try_into().map_err(|e: seccompiler::BackendError| e.to_string())?;
        seccompiler::apply_filter(&program).map_err(to_text)?;
    }
    Ok(())
}

const REFUSED: &[i64] = &[
    // The network, and all sockets.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_setsid,
    libc::SYS_setpgid,
    libc::SYS_setpriority,
    libc::SYS_setrlimit,
    libc::SYS_setns,
    libc::SYS_unshare,
    // Memory that the limits don't count.
    libc::SYS_memfd_create,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    libc::SYS_userfaultfd,
    // The kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_quotactl,
    libc::SYS_personality,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // The file system.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_inotify_init1,
    libc::SYS_mknodat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    // Changing the user, groups or capabilities.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

/// Older variants of the same calls.
#[cfg(target_arch = "x86_64")]
const REFUSED_ON_X86: &[i64] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_mknod,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_inotify_init,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_modify_ldt,
    libc::SYS_kexec_file_load,
];

/// The built-in decoders have everything open that they need.
const REFUSED_TO_BUILT_IN: &[i64] = &[libc::SYS_execve, libc::SYS_execveat, libc::SYS_openat, libc::SYS_openat2];
