//! A system call that the kernel refuses, as an old kernel or the profile of a container does. Owns
//! the seccomp filter; touches no other thread of the test.
#![allow(unsafe_code, reason = "no safe function installs a filter")]

use std::io;
use std::thread;

use super::machine::Missing;

/// Tells which pages of a file are cached (Linux 6.5); the same number on all architectures.
pub const CACHESTAT: u32 = 451;

/// Runs `action` on a thread of its own whose calls with this number fail with `errno`, and those of
/// the threads and programs that it starts.
pub fn refusing<T: Send>(
    call: u32,
    errno: i32,
    action: impl FnOnce() -> T + Send,
) -> Result<T, Missing> {
    let refused = || -> io::Result<T> {
        install(call, errno)?;
        Ok(action())
    };
    let ended = thread::scope(|scope| scope.spawn(refused).join());
    match ended {
        Ok(result) => result.map_err(|error| Missing(format!("seccomp: {error}"))),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Installs the filter for the thread that calls (seccomp(2)).
fn install(call: u32, errno: i32) -> io::Result<()> {
    let step = |code: u32, k| {
        let code = u16::try_from(code).unwrap();
        libc::sock_filter { code, jt: 0, jf: 0, k }
    };
    let error = u32::try_from(errno).unwrap() & libc::SECCOMP_RET_DATA;
    let mut steps = [
        // The number is the first member of `struct seccomp_data`.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter { jf: 1, ..step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call) },
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | error),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
    // Without it a filter needs privileges.
    nix::sys::prctl::set_no_new_privs()?;
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the program and its steps outlive the call, which copies them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
