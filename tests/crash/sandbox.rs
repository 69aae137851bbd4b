//! Start-up where a sandbox or a file system forbids what the server needs: a seccomp filter
//! answers for the kernel, as a container's profile does, and limits are those of a shell.

use crate::link::Link;
use crate::server::{Server, command, refused};
use crate::startup::{assert_refused, folder};
use libc::{c_int, c_long, sock_filter, sock_fprog};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

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
    let mut command = command(&dir);
    let filter = filter(libc::SYS_openat, Some(libc::O_DIRECT), libc::EINVAL);
    let refusal = refused(under(&mut command, filter));
    assert_refused(
        refusal,
        "O_DIRECT",
        "'The file system does not support direct I/O'",
    );
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
