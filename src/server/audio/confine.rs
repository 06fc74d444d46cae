//! What a decoder denies itself before it reads a byte of a stranger's file: memory, processor time, files, programs,
//! the network. Each layer is there for when another isn't, or has a hole. Called by `child`, in a process that has one
//! thread, because Landlock holds for the calling thread and what it starts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, Signal, getpriority_process, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// How much nicer decoders are than Hark itself, as engines are: streams and pages come first.
const NICER: i32 = 10;

/// Address space beyond the memory that may be used, in bytes: the allocator reserves it, and shared libraries are mapped.
/// It is a bound for what doesn't count as data, such as shared mappings.
const ADDRESS_SPACE: u64 = 4 << 30;

/// Files that may be open: the recording, the pipes, and the library that the loader is reading.
const FILES: u64 = 32;

/// x86-64 has a second set of numbers for its system calls, behind this bit, and some more between these two.
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

/// Who it is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role<'a> {
    /// The built-in decoders, which need no file but the one that is open, and start nothing.
    BuiltIn,
    /// ffmpeg or ffprobe at this path, which this process is about to become.
    Program(&'a Path),
}

/// Applies all of it to this process and what it becomes. Returns what this machine doesn't have, in words for the log.
pub(super) fn confine(bounds: Bounds, role: Role<'_>) -> Vec<String> {
    let mut missing = Vec::new();
    // What is seen of it in a list of processes, where it would be called after a file of /proc.
    let _ = rustix::thread::set_name(c"hark-decoder");
    let mut layer = |name: &str, applied: Result<(), String>| {
        if let Err(reason) = applied {
            missing.push(format!("{name} ({reason})"));
        }
    };
    let parent = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    layer("the end with its parent", parent.map_err(text));
    let nicer = getpriority_process(None).and_then(|now| setpriority_process(None, now + NICER));
    layer("low priority", nicer.map_err(text));
    // Where memory runs out for the whole machine, a decoder goes before the server.
    layer("going first when memory runs out", fs::write("/proc/self/oom_score_adj", "1000").map_err(text));
    layer("limits of memory and time", limit(bounds).map_err(text));
    layer("no new privileges", rustix::thread::set_no_new_privs(true).map_err(text));
    // Of use where Hark runs as root: it could raise its limits again, or load modules.
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    layer("no capabilities", rustix::thread::set_capabilities(None, sets).map_err(text));
    layer("Landlock", landlock(role));
    layer("seccomp", seccomp(role));
    missing
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn limit(bounds: Bounds) -> rustix::io::Result<()> {
    let lower = |resource, soft: u64, hard: u64| {
        // Whoever started Hark may allow it less.
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        setrlimit(resource, Rlimit { current: Some(soft.min(most)), maximum: Some(hard.min(most)) })
    };
    let both = |resource, n| lower(resource, n, n);
    // Not only the address space: the allocator reserves far more of it than it uses.
    both(Resource::Data, bounds.memory)?;
    both(Resource::As, bounds.memory.saturating_add(ADDRESS_SPACE))?;
    // The signal at the first tells the parent why.
    lower(Resource::Cpu, bounds.cpu_secs, bounds.cpu_secs.saturating_add(1))?;
    both(Resource::Core, 0)?;
    both(Resource::Fsize, 0)?;
    both(Resource::Nofile, FILES)
    // How many processes one user may have is no use here: it counts the user's others, and not at all for root. The
    // filter of system calls allows threads only.
}

/// No file may be opened but, by ffmpeg, the recording, its own program and its libraries. Nothing may be written.
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
            rules = rules.add_rule(beneath(stdin.as_fd(), AccessFs::ReadFile))?;
            for path in needed(program) {
                let Ok(file) = File::open(&path) else { continue };
                let access = if path.is_dir() { read } else { read & AccessFs::from_file(newest) };
                rules = rules.add_rule(beneath(file.as_fd(), access))?;
            }
        }
        rules.restrict_self()
    };
    match made().map_err(text)?.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced => Err("in part only: this kernel is older than 6.12".to_owned()),
        RulesetStatus::NotEnforced => Err("this kernel doesn't have it, or it is switched off".to_owned()),
    }
}

fn beneath(file: BorrowedFd<'_>, access: impl Into<landlock::BitFlags<AccessFs>>) -> PathBeneath<BorrowedFd<'_>> {
    PathBeneath::new(file, access.into())
}

/// What a program needs to start: itself, the loader, its libraries.
fn needed(program: &Path) -> Vec<PathBuf> {
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
    // A build of its own often has its libraries in a folder beside that of its programs.
    paths.extend(program.parent().and_then(Path::parent).map(|folder| folder.join("lib")));
    paths
        .extend(std::env::var_os("LD_LIBRARY_PATH").iter().flat_map(std::env::split_paths).filter(|p| p.is_absolute()));
    paths.extend(["/dev/null", "/dev/zero", "/dev/urandom"].map(PathBuf::from));
    paths.push(program);
    paths
}

/// System calls that no decoder has a use for fail: those that reach other processes, the network, the kernel's keys and
/// settings, files by other ways than opening them. So do new processes; threads are allowed.
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
    let no_thread = SeccompRule::new(vec![no_thread.map_err(text)?]).map_err(text)?;
    refused.insert(libc::SYS_clone, vec![no_thread]);
    // Limits may be read, and not set.
    let sets = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0).map_err(text)?;
    refused.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![sets]).map_err(text)?]);
    // The C library asks for the newer call first, whose flags no filter can see, and makes do with the older one.
    let mut unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    #[cfg(target_arch = "x86_64")]
    {
        let hidden: Vec<i64> = refused.keys().chain(unknown.keys()).copied().chain(X32_ONLY).collect();
        refused.extend(hidden.into_iter().map(|number| (number | X32, Vec::new())));
        unknown.insert(libc::SYS_clone3, Vec::new());
    }
    for (rules, errno) in [(unknown, libc::ENOSYS), (refused, libc::EPERM)] {
        let action = SeccompAction::Errno(errno.unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).map_err(text)?;
        let program: BpfProgram = filter.try_into().map_err(|e: seccompiler::BackendError| e.to_string())?;
        seccompiler::apply_filter(&program).map_err(text)?;
    }
    Ok(())
}

const REFUSED: &[i64] = &[
    // The network, and sockets at all.
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
    // Memory that the limits don't see.
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
    // Becoming somebody else.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

/// The same by their older names.
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

/// The built-in decoders have all that they need open.
const REFUSED_TO_BUILT_IN: &[i64] = &[libc::SYS_execve, libc::SYS_execveat, libc::SYS_openat, libc::SYS_openat2];
