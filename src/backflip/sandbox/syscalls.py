"""The system calls a confined program may make, by name and number; every other one is refused.

Numbers are those of the Linux system call tables of x86-64 and of the 64-bit Arm (generic) architecture. What is not here is
refused because it is not here: fork, vfork, execve, kill and its kin, ptrace, process_vm_*, pidfd_*, unshare, setns, mount,
socket, connect, bind, io_uring_*, bpf, keyctl, userfaultfd, open_by_handle_at, perf_event_open, every call that writes to a file
system by name (unlink, rename, mkdir, chmod, truncate, …), shared memory and message queues.
"""

from __future__ import annotations

from backflip.errors import SandboxError

X86_64 = {
    "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8, "mmap": 9,
    "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "ioctl": 16,
    "pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20, "access": 21, "pipe": 22, "select": 23, "sched_yield": 24,
    "mremap": 25, "madvise": 28, "dup": 32, "dup2": 33, "pause": 34, "nanosleep": 35, "getitimer": 36, "alarm": 37,
    "setitimer": 38, "getpid": 39, "sendto": 44, "recvfrom": 45, "shutdown": 48, "getsockname": 51, "getpeername": 52,
    "socketpair": 53, "getsockopt": 55, "clone": 56, "exit": 60, "wait4": 61, "uname": 63, "fcntl": 72, "getdents": 78,
    "getcwd": 79, "chdir": 80, "fchdir": 81, "readlink": 89, "umask": 95, "gettimeofday": 96, "getrlimit": 97, "getrusage":
    98, "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110,
    "getpgrp": 111, "getgroups": 115, "getresuid": 118, "getresgid": 120, "getpgid": 121, "getsid": 124, "rt_sigpending":
    127, "rt_sigtimedwait": 128, "rt_sigsuspend": 130, "sigaltstack": 131, "prctl": 157, "arch_prctl": 158, "gettid": 186,
    "time": 201, "futex": 202, "sched_getaffinity": 204, "epoll_create": 213, "getdents64": 217, "set_tid_address": 218,
    "restart_syscall": 219, "fadvise64": 221, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230,
    "exit_group": 231, "epoll_wait": 232, "epoll_ctl": 233, "waitid": 247, "openat": 257, "newfstatat": 262, "readlinkat":
    267, "faccessat": 269, "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "epoll_pwait": 281, "eventfd": 284,
    "eventfd2": 290, "epoll_create1": 291, "dup3": 292, "pipe2": 293, "preadv": 295, "pwritev": 296, "prlimit64": 302,
    "getcpu": 309, "getrandom": 318, "statx": 332, "rseq": 334, "clone3": 435, "close_range": 436, "openat2": 437,
    "faccessat2": 439, "epoll_pwait2": 441,
}  # fmt: skip

AARCH64 = {
    "getcwd": 17, "eventfd2": 19, "epoll_create1": 20, "epoll_ctl": 21, "epoll_pwait": 22, "dup": 23, "dup3": 24, "fcntl":
    25, "ioctl": 29, "faccessat": 48, "chdir": 49, "fchdir": 50, "openat": 56, "close": 57, "pipe2": 59, "getdents64": 61,
    "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67, "pwrite64": 68, "preadv": 69, "pwritev":
    70, "pselect6": 72, "ppoll": 73, "readlinkat": 78, "newfstatat": 79, "fstat": 80, "exit": 93, "exit_group": 94,
    "waitid": 95, "set_tid_address": 96, "futex": 98, "set_robust_list": 99, "nanosleep": 101, "getitimer": 102,
    "setitimer": 103, "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "sched_getaffinity": 123,
    "sched_yield": 124, "restart_syscall": 128, "sigaltstack": 132, "rt_sigsuspend": 133, "rt_sigaction": 134,
    "rt_sigprocmask": 135, "rt_sigpending": 136, "rt_sigtimedwait": 137, "rt_sigreturn": 139, "getresuid": 148, "getresgid":
    150, "times": 153, "getpgid": 155, "getsid": 156, "getgroups": 158, "uname": 160, "getrlimit": 163, "getrusage": 165,
    "umask": 166, "prctl": 167, "getcpu": 168, "gettimeofday": 169, "getpid": 172, "getppid": 173, "getuid": 174, "geteuid":
    175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179, "socketpair": 199, "getsockname": 204, "getpeername":
    205, "sendto": 206, "recvfrom": 207, "getsockopt": 209, "shutdown": 210, "brk": 214, "munmap": 215, "mremap": 216,
    "clone": 220, "mmap": 222, "fadvise64": 223, "mprotect": 226, "madvise": 233, "wait4": 260, "prlimit64": 261,
    "getrandom": 278, "statx": 291, "rseq": 293, "clone3": 435, "close_range": 436, "openat2": 437, "faccessat2": 439,
    "epoll_pwait2": 441,
}  # fmt: skip

MISSING = ("clone3", "openat2")
"""Calls that are said not to exist (ENOSYS): their arguments lie in memory, where a filter cannot look, and the C library then
uses the older call."""

CONDITIONAL = ("open", "openat", "clone", "prlimit64", "fcntl", "ioctl", "prctl", "socketpair", "sendto")
"""Calls that are allowed with some arguments only; see `seccomp`."""

NEWEST = 450
"""The newest call that was known when the tables were written; later ones are said not to exist."""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""How the kernel tells a filter which table a call's number is of."""


def table(machine: str) -> dict[str, int]:
    """The numbers for a machine as `platform.machine()` names it. Raises SandboxError for one that has no table here."""
    try:
        return {"x86_64": X86_64, "aarch64": AARCH64}[machine]
    except KeyError:
        raise SandboxError(
            f"the sandbox knows the system calls of x86_64 and aarch64, not of {machine}; run model-written code on one of those"
        ) from None
