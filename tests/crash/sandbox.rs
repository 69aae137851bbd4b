//! Start-up where a sandbox or a file system forbids what the server needs: a seccomp filter
//! answers for the kernel, as a container's profile does; limits are those of a shell; and file
//! systems are small, or other users'.

use crate::link::Link;
use crate::server::{Server, command, refused};
use crate::startup::{assert_refused, folder};
use libc::{c_int, c_long, sock_filter, sock_fprog};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Offset of the call's number in `struct seccomp_data`.
const NUMBER: u32 = 0;
/// Offset of the lower half of the third argument there.
const THIRD_ARGUMENT: u32 = 32;

const _: () = assert!(cfg!(target_endian = "little"), "the lower half comes first");

fn step(code: u32, value: u32, if_true: u8, if_false: u8) -> sock_filter {
    sock_filter {
        code: u16::try_from(code).expect("the codes are small"),
        jt: if_true,
        jf: if_false,
        k: value,
    }
}

fn load(offset: u32) -> sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn end(answer: u32) -> sock_filter {
    step(libc::BPF_RET | libc::BPF_K, answer, 0, 0)
}

/// A filter under which `call` fails with `errno`: always, or where its third argument has one of
/// the bits `flags`.
fn filter(call: c_long, flags: Option<c_int>, errno: c_int) -> Vec<sock_filter> {
    let call = u32::try_from(call).expect("a call's number");
    let is = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let has = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    let errno = libc::SECCOMP_RET_ERRNO | u32::try_from(errno).expect("an error's number");
    let mut filter = vec![load(NUMBER)];
    match flags {
        None => filter.push(step(is, call, 0, 1)),
        Some(flags) => {
            filter.push(step(is, call, 0, 3));
            filter.push(load(THIRD_ARGUMENT));
            filter.push(step(has, flags.cast_unsigned(), 0, 1));
        }
    }
    filter.extend([end(errno), end(libc::SECCOMP_RET_ALLOW)]);
    filter
}

/// Has the command run under the filter.
fn under(command: &mut Command, mut filter: Vec<sock_filter>) -> &mut Command {
    let enter = move || {
        let program = sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: plain system calls, and the program lives until the second has copied it.
        let entered = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
        };
        match entered {
            true => Ok(()),
            false => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec, `enter` makes system calls and takes no lock or memory.
    unsafe { command.pre_exec(enter) }
}

#[test]
fn io_uring_forbidden_by_a_containers_profile_is_refused_with_the_way_out() {
    let (_parent, dir) = folder();
    for (call, name) in [
        (libc::SYS_io_uring_setup, "io_uring_setup"),
        (libc::SYS_io_uring_enter, "io_uring_enter"),
        (libc::SYS_io_uring_register, "io_uring_register"),
    ] {
        for (errno, why) in [
            (libc::EPERM, "a container's seccomp profile"),
            (libc::ENOSYS, "the kernel was built without it"),
        ] {
            let mut command = command(&dir);
            let refusal = refused(under(&mut command, filter(call, None, errno)));
            assert!(refusal.1.contains(&format!("({name}: ")), "{refusal:?}");
            assert_refused(refusal, why, "'io_uring is not available'");
        }
    }
    assert!(!dir.exists(), "the machine is looked at before the disk");
}

#[test]
fn a_file_system_without_direct_io_is_refused_with_the_way_out() {
    let (_parent, dir) = folder();
    for errno in [libc::EINVAL, libc::EOPNOTSUPP] {
        let filter = filter(libc::SYS_openat, Some(libc::O_DIRECT), errno);
        let refusal = refused(under(&mut command(&dir), filter));
        assert_refused(
            refusal,
            "O_DIRECT",
            "'The file system does not support direct I/O'",
        );
    }
    let left = fs::read_dir(&dir).expect("it was made");
    let segments = left.filter_map(Result::ok).filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with("log-")
    });
    assert_eq!(segments.count(), 0, "a log was begun");
}

/// Has the command run under a limit that it cannot raise.
fn limited(command: &mut Command, what: libc::__rlimit_resource_t, most: u64) -> &mut Command {
    let limit = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: a plain system call, and the limit lives through it.
    let set = move || match unsafe { libc::setrlimit(what, &limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: between fork and exec, `set` makes a system call and takes no lock or memory.
    unsafe { command.pre_exec(set) }
}

#[test]
fn too_little_lockable_memory_is_refused_with_what_is_needed() {
    let (_parent, dir) = folder();
    let refusal = refused(limited(&mut command(&dir), libc::RLIMIT_MEMLOCK, 65_536));
    let section = "'Too little memory may be locked'";
    assert_refused(refusal, "only 65536 bytes of memory may be locked", section);
    assert!(!dir.exists(), "the machine is looked at before the disk");
}

#[test]
fn too_few_files_are_refused_with_a_number_that_is_enough() {
    let (_parent, dir) = folder();
    let refusal = refused(limited(&mut command(&dir), libc::RLIMIT_NOFILE, 20));
    let needed = refusal
        .1
        .split_once("only 20 files may be open, and ")
        .and_then(|(_, rest)| rest.split_once(" are needed")?.0.parse().ok())
        .unwrap_or_else(|| panic!("the number is missing: {refusal:?}"));
    assert_refused(refusal, "ulimit -n", "'Too few files may be open'");
    assert!(!dir.exists(), "the machine is looked at before the disk");
    let few = refused(limited(&mut command(&dir), libc::RLIMIT_NOFILE, needed - 1));
    assert_eq!(few.0, Some(1), "{few:?}");
    let server = Server::start_as(limited(&mut command(&dir), libc::RLIMIT_NOFILE, needed));
    let mut link = Link::open(server.address).expect("it serves");
    link.put(b"key", b"value").expect("it is served");
    assert_eq!(server.terminate().0.code(), Some(0));
}

/// The kernel's own answer would be a signal that ends the process without a word.
#[test]
fn a_limit_on_the_size_of_files_is_named() {
    let (_parent, dir) = folder();
    let refusal = refused(limited(&mut command(&dir), libc::RLIMIT_FSIZE, 1 << 20));
    assert!(refusal.1.contains("log-000001.seg"), "{refusal:?}");
    assert_refused(refusal, "the file may not grow", "'A file may not grow'");
    // Without the limit the same directory serves.
    drop(Server::start(&dir));
}

/// Has the command run without the rights of a superuser over other users' files.
fn unprivileged(command: &mut Command) -> &mut Command {
    const CAP_DAC_OVERRIDE: libc::c_ulong = 1;
    const CAP_DAC_READ_SEARCH: libc::c_ulong = 2;
    let drop = || {
        for right in [CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH] {
            // SAFETY: a plain system call; one that is refused means that there is no such right.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, right, 0, 0, 0) };
        }
        Ok(())
    };
    // SAFETY: between fork and exec, `drop` makes system calls and takes no lock or memory.
    unsafe { command.pre_exec(drop) }
}

#[test]
fn a_directory_that_may_not_be_entered_or_made_is_refused() {
    let (parent, dir) = folder();
    let section = "'The data directory's permissions'";
    let mode = |mode| fs::set_permissions(parent.path(), Permissions::from_mode(mode));
    mode(0o500).expect("it is ours");
    let refusal = refused(unprivileged(&mut command(&dir)));
    mode(0o700).expect("it is ours");
    assert_refused(refusal, "Permission denied", section);
    assert!(!dir.exists());
    Server::start(&dir).kill();
    fs::set_permissions(&dir, Permissions::from_mode(0o000)).expect("it is ours");
    let refusal = refused(unprivileged(&mut command(&dir)));
    assert_refused(refusal, "Permission denied", section);
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).expect("it is ours");
    drop(Server::start(&dir));
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let (_parent, dir) = folder();
    Server::start(&dir).kill();
    if chown(&dir, Some(65_534), None).is_err() {
        eprintln!(
            "a_directory_of_another_user_is_refused skipped: only root may give a directory away"
        );
        return;
    }
    let refusal = refused(&mut command(&dir));
    let section = "'The data directory's permissions'";
    assert_refused(refusal, "belongs to another user", section);
}

#[test]
fn a_place_where_no_directory_can_be_made_is_refused() {
    let refusal = refused(&mut command(Path::new("/proc/quoin")));
    let section = "'The data directory cannot be made'";
    assert_refused(refusal, "/proc/quoin cannot be made", section);
    let (parent, dir) = folder();
    let nowhere = parent.path().join("nowhere");
    std::os::unix::fs::symlink(nowhere, &dir).expect("a link");
    let refusal = refused(&mut command(&dir));
    assert_refused(refusal, "No such file or directory", section);
}

/// Runs a script in a shell of its own, where `$1` becomes a file system in memory of so many MiB,
/// which nobody else sees and which ends with it.
fn on_a_small_disk(at: &Path, mib: u32, script: &str) -> Command {
    let script = format!("mount -t tmpfs -o mode=700,size={mib}m none \"$1\" && {script}");
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--mount", "sh", "-c", &script, "sh"])
        .arg(at)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
fn a_disk_without_room_for_the_log_is_refused() {
    let parent = tempfile::tempdir().expect("a folder");
    let direct = "dd if=/dev/zero of=\"$1\"/direct bs=4096 count=1 oflag=direct";
    let tried = on_a_small_disk(parent.path(), 1, direct).output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        eprintln!(
            "a_disk_without_room_for_the_log_is_refused skipped: no file system with direct I/O \
             can be mounted here"
        );
        return;
    }
    let start = format!(
        "exec {} --data-dir \"$1\"/node --listen-client-urls http://127.0.0.1:0",
        env!("CARGO_BIN_EXE_quoin")
    );
    for mib in [1, 16, 31] {
        let refusal = refused(&mut on_a_small_disk(parent.path(), mib, &start));
        assert_refused(refusal, "no space is left", "'The disk is full'");
    }
}
