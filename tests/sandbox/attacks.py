"""Programs that try to get out, to see, to stay or to eat the machine. Each prints LEAKED when it gets what it should not.

A program is the prelude, then its body in a `try`; a refusal is an OSError, MemoryError or RuntimeError, and is printed as
`refused`. `{name}` stands for a target of the fixture `world` in test_attacks.py.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

PRELUDE = """
import ctypes, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
try:
{body}
except (OSError, MemoryError, RuntimeError) as error:
    print("refused", type(error).__name__, error)
else:
    print("LEAKED")
"""

X86_64 = {
    "shmget": 29, "semget": 64, "msgget": 68, "mount": 165, "ptrace": 101, "unshare": 272, "setns": 308, "tkill": 200,
    "bpf": 321, "keyctl": 250, "add_key": 248, "userfaultfd": 323, "open_by_handle_at": 304, "name_to_handle_at": 303,
    "perf_event_open": 298, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "mq_open": 240, "execveat": 322,
    "rt_sigqueueinfo": 129, "memfd_create": 319, "move_pages": 279, "vmsplice": 278, "init_module": 175, "quotactl": 179,
    "sendmsg": 46, "sendmmsg": 307, "inotify_init1": 294, "personality": 135, "seccomp": 317,
}  # fmt: skip
AARCH64 = {
    "shmget": 194, "semget": 190, "msgget": 186, "mount": 40, "ptrace": 117, "unshare": 97, "setns": 268, "tkill": 130,
    "bpf": 280, "keyctl": 219, "add_key": 217, "userfaultfd": 282, "open_by_handle_at": 265, "name_to_handle_at": 264,
    "perf_event_open": 241, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "mq_open": 180, "execveat": 281,
    "rt_sigqueueinfo": 138, "memfd_create": 279, "move_pages": 239, "vmsplice": 75, "init_module": 105, "quotactl": 60,
    "sendmsg": 211, "sendmmsg": 269, "inotify_init1": 26, "personality": 92, "seccomp": 277,
}  # fmt: skip
EVERYWHERE = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "open_tree": 428, "fsopen": 430, "pidfd_open": 434, "clone3": 435,
    "openat2": 437, "pidfd_getfd": 438, "process_madvise": 440, "landlock_create_ruleset": 444, "memfd_secret": 447,
}  # fmt: skip
NUMBERS = EVERYWHERE | (AARCH64 if platform.machine() == "aarch64" else X86_64)


@dataclass(frozen=True, slots=True)
class Attack:
    """A program's body and how its execution may end; `threads` when it is allowed to start threads."""

    body: str
    ends: tuple[str, ...] = ("ok",)
    slow: bool = False
    threads: bool = False

    def program(self, targets: dict[str, object]) -> str:
        """The whole text, with the targets' values in place."""
        body = self.body
        for name, value in targets.items():
            body = body.replace("{" + name + "}", repr(value))
        for name, number in NUMBERS.items():
            body = body.replace("NR_" + name + ",", f"{number},").replace("NR_" + name + ")", f"{number})")
        return PRELUDE.replace("{body}", "\n".join("    " + line for line in body.strip().split("\n")))


def _never(body: str, **more: bool) -> Attack:
    """A program that must be killed."""
    return Attack(body, ends=("timeout",), slow=True, **more)


ATTACKS = {
    # eating the machine
    "fork bomb": Attack("while True: os.fork()"),
    "fork and memory": Attack("if os.fork() == 0: x = bytearray(1 << 30)"),
    "vfork": Attack("libc.vfork.restype = ctypes.c_int\ncheck(libc.vfork())"),
    "threads": Attack("import threading\nthreading.Thread(target=print).start()"),
    "thread bomb": Attack(
        "import threading\nthreading.stack_size(1 << 20)\nstop = threading.Event()\n"
        "for i in range(100_000): threading.Thread(target=stop.wait, daemon=True).start()",
        threads=True,
    ),
    "memory bomb": Attack("x = []\nwhile True: x.append(bytearray(1 << 24))"),
    "memory map bomb": Attack("import mmap\nkept = []\nwhile True: kept.append(mmap.mmap(-1, 1 << 26))"),
    "memory file": Attack("import array\nfile = call(NR_memfd_create, b'x', 0)\nwhile True: os.write(file, bytes(1 << 20))"),
    "pipes full": Attack("kept = []\nwhile True: kept.append(os.pipe())"),
    "infinite loop": _never("while True: pass"),
    "loop that ignores signals": _never(
        "import signal\nfor s in range(1, 64):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "while True: pass"
    ),
    "loop that catches all": _never("while True:\n    try:\n        while True: pass\n    except BaseException: pass"),
    "sleep with closed streams": _never("os.close(0); os.close(1); os.close(2)\ntime.sleep(1000)"),
    "regular expression": _never("import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')"),
    "big integer": _never("x = 3 ** 10 ** 9"),
    "big text of a big integer": _never("sys.set_int_max_str_digits(0)\nstr(7 ** 10 ** 7)"),
    "output flood": Attack("while True: os.write(1, b'x' * 65536)", ends=("output",)),
    "error flood": Attack("while True: os.write(2, b'x' * 65536)", ends=("output",)),
    "output flood in lines": Attack("while True: print('x')", ends=("output",)),
    "recursion": Attack("def f(): f()\nf()"),
    "recursion without limit": Attack(
        "sys.setrecursionlimit(10 ** 9)\ndef f(x): return [f(x)] and sorted([x], key=f)\nf(1)",
        ends=("crash", "ok", "timeout"),
        slow=True,
    ),
    "segfault": Attack("ctypes.string_at(0)", ends=("crash",)),
    "core dump": Attack(
        "import resource\nassert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)\nos.abort()", ends=("crash",)
    ),
    "raise the limits": Attack(
        "import resource\nlibc.setrlimit(resource.RLIMIT_AS, (ctypes.c_long * 2)(-1, -1)) == 0 or check(-1)"
    ),
    "disk": Attack("open('/tmp/x', 'wb').write(bytes(1 << 30))"),
    "disk in the working folder": Attack("open('x', 'wb').write(b'x')"),
    "shared memory folder": Attack("open('/dev/shm/x', 'wb').write(bytes(1 << 24))"),
    "inodes": Attack("for i in range(50_000): os.mkdir(f'/tmp/{i}')"),
    "nameless file": Attack("os.open('/tmp', os.O_TMPFILE | os.O_RDWR)"),
    "System V memory": Attack("call(NR_shmget, 0, 1 << 20, 0o1600)"),
    "System V semaphores": Attack("call(NR_semget, 0, 1, 0o1600)"),
    "System V messages": Attack("call(NR_msgget, 0, 0o1600)"),
    "message queue": Attack("call(NR_mq_open, b'x', 0o102, 0o600, None)"),
    # seeing what is not its business
    "secret": Attack("print(open({secret}).read())"),
    "secret, by low-level open": Attack("print(os.read(os.open({secret}, os.O_RDONLY | os.O_NOFOLLOW), 100))"),
    "secret, by openat2": Attack(
        "how = (ctypes.c_uint64 * 3)()\nprint(os.read(call(NR_openat2, -100, {secret}.encode(), how, 24), 99))"
    ),
    "secret through a symlink": Attack("print(open({link}).read())"),
    "symlink of its own": Attack("os.symlink({secret}, '/tmp/l')\nprint(open('/tmp/l').read())"),
    "hard link": Attack("os.link({secret}, {folder} + '/hard')"),
    "result file that is a symlink": Attack("os.symlink({secret}, 'result.json')"),
    "listing of a folder": Attack("print(os.listdir({folder}))"),
    "listing of the root": Attack("found = os.listdir('/')\nprint(found)\nif 'proc' not in found: raise OSError('another root')"),
    "password file": Attack("print(open('/etc/passwd').read())"),
    "shadow file": Attack("print(open('/etc/shadow').read())"),
    "environment of the parent": Attack("print(open('/proc/%d/environ' % {pid}).read())"),
    "command line of the parent": Attack("print(open('/proc/%d/cmdline' % {pid}).read())"),
    "own parent's environment": Attack("print(open('/proc/%d/environ' % os.getppid()).read())"),
    "descriptors of the parent": Attack("print(os.listdir('/proc/%d/fd' % {pid}))"),
    "memory of the parent": Attack("open('/proc/%d/mem' % {pid}, 'rb').read(1)"),
    "root of the first process": Attack("print(os.listdir('/proc/1/root'))"),
    "list of processes": Attack("print(os.listdir('/proc'))"),
    "working folder of the parent": Attack("print(os.readlink('/proc/%d/cwd' % {pid}))"),
    "devices": Attack("open('/dev/mem', 'rb').read(1)"),
    "block device": Attack("open('/dev/vda', 'rb').read(1)"),
    "kernel log": Attack("open('/dev/kmsg', 'rb', 0).read(1)"),
    "inherited descriptors": Attack(
        "found = []\nfor fd in range(3, 4096):\n    try: found.append((fd, os.fstat(fd)))\n    except OSError: pass\n"
        "print(found)\nif not found: raise OSError('none')"
    ),
    "environment": Attack(
        "known = {'LANG', 'PATH', 'PYTHONHASHSEED', 'OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS'}\nprint(dict(os.environ))\n"
        "if set(os.environ) == known: raise OSError('none of the trainer\\'s')"
    ),
    "open by handle": Attack("call(NR_open_by_handle_at, -100, b'x' * 64, 0)"),
    "name to handle": Attack("call(NR_name_to_handle_at, -100, b'/', bytes(64), bytes(8), 0)"),
    "perf events": Attack("call(NR_perf_event_open, bytes(128), 0, -1, -1, 0)"),
    "watch of files": Attack("call(NR_inotify_init1, 0)"),
    # reaching out
    "TCP": Attack("socket.create_connection(('127.0.0.1', {tcp}), 1)"),
    "TCP, IPv6": Attack("socket.create_connection(('::1', {tcp}), 1)"),
    "UDP": Attack("socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp}))"),
    "name server": Attack("print(socket.getaddrinfo('example.org', 80))"),
    "listening": Attack("socket.create_server(('127.0.0.1', 0))"),
    "Unix socket": Attack("socket.socket(socket.AF_UNIX).connect({unix})"),
    "abstract Unix socket": Attack("socket.socket(socket.AF_UNIX).connect({abstract})"),
    "abstract Unix socket by a pair": Attack(
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendto(b'x', {datagram})"
    ),
    "address on a stream pair": Attack("a, b = socket.socketpair()\na.sendto(b'x', {datagram})"),
    "message with descriptors": Attack("a, b = socket.socketpair()\nsocket.send_fds(a, [b'x'], [0])"),
    "netlink": Attack("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)"),
    "packets": Attack("socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)"),
    "virtual machine socket": Attack("socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)"),
    "crypto socket": Attack("socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)"),
    # changing what is outside
    "write outside": Attack("open({folder} + '/written', 'w').write('x')"),
    "write over": Attack("open({mine}, 'w').write('x')"),
    "append": Attack("open({mine}, 'a').write('x')"),
    "truncate while reading": Attack("os.open({mine}, os.O_RDONLY | os.O_TRUNC)"),
    "truncate": Attack("os.truncate({mine}, 0)"),
    "remove": Attack("os.remove({mine})"),
    "rename": Attack("os.rename({mine}, {mine} + '2')"),
    "change mode": Attack("os.chmod({mine}, 0o777)"),
    "change owner": Attack("os.chown({mine}, os.getuid(), os.getgid())"),
    "change times": Attack("os.utime({mine}, (0, 0))"),
    "extended attribute": Attack("os.setxattr({mine}, 'user.x', b'x')"),
    "make a node": Attack("os.mkfifo({folder} + '/fifo')"),
    "write bytecode": Attack("open(os.__file__ + 'c', 'wb').write(b'')"),
    "mount": Attack("call(NR_mount, b'none', b'/tmp', b'tmpfs', 0, None)"),
    "new mount calls": Attack("call(NR_fsopen, b'tmpfs', 0)"),
    "open tree": Attack("call(NR_open_tree, -100, b'/', 1)"),
    "change root": Attack("os.chroot('/usr')"),
    "kernel module": Attack("call(NR_init_module, b'x', 1, b'')"),
    "host name": Attack("socket.sethostname('x')"),
    "clock": Attack("time.clock_settime(time.CLOCK_REALTIME, 0)"),
    # hurting other processes
    "kill the parent": Attack("os.kill(os.getppid(), 9)"),
    "kill the trainer": Attack("os.kill({pid}, 0)"),
    "kill a neighbour": Attack("os.kill({victim}, 9)"),
    "kill everybody": Attack("os.kill(-1, 9)"),
    "kill the group": Attack("os.killpg(0, 9)"),
    "kill by thread": Attack("call(NR_tkill, {victim}, 9)"),
    "queue a signal": Attack("call(NR_rt_sigqueueinfo, {victim}, 9, bytes(128))"),
    "kill by descriptor": Attack("call(NR_pidfd_send_signal, call(NR_pidfd_open, {victim}, 0), 9, None, 0)"),
    "signal by ownership of a pipe": Attack(
        "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, {victim})\nfcntl.fcntl(r, 10, 9)"
    ),
    "trace": Attack("call(NR_ptrace, 0x4206, {victim}, 0, 0)"),
    "be traced": Attack("call(NR_ptrace, 0, 0, 0, 0)"),
    "read memory": Attack("call(NR_process_vm_readv, {victim}, bytes(16), 1, bytes(16), 1, 0)"),
    "write memory": Attack("call(NR_process_vm_writev, {victim}, bytes(16), 1, bytes(16), 1, 0)"),
    "steal a descriptor": Attack("call(NR_pidfd_getfd, call(NR_pidfd_open, {victim}, 0), 0, 0)"),
    "compare kernel objects": Attack("call(NR_kcmp, os.getpid(), {victim}, 0, 0, 0)"),
    "limits of another": Attack("import resource\nresource.prlimit({victim}, resource.RLIMIT_CPU, (0, 0))"),
    "processors of another": Attack("os.sched_setaffinity({victim}, [0])"),
    "priority of another": Attack("os.setpriority(os.PRIO_PROCESS, {victim}, 19)"),
    "pages of another": Attack("call(NR_move_pages, {victim}, 0, None, None, None, 0)"),
    "madvise another": Attack("call(NR_process_madvise, 0, None, 0, 4, 0)"),
    "type into a terminal": Attack("import fcntl\nfcntl.ioctl(0, 0x5412, b'x')"),
    # becoming more, or staying
    "user namespace": Attack("call(NR_unshare, 0x10000000)"),
    "all namespaces": Attack("call(NR_unshare, 0x7e020000)"),
    "join a namespace": Attack("call(NR_setns, 0, 0)"),
    "clone3": Attack("call(NR_clone3, bytes(64), 64)"),
    "io_uring": Attack("call(NR_io_uring_setup, 8, bytes(128))"),
    "bpf": Attack("call(NR_bpf, 0, bytes(64), 64)"),
    "keyring": Attack("call(NR_keyctl, 0, -3, 1)"),
    "add a key": Attack("call(NR_add_key, b'user', b'x', b'x', 1, -3)"),
    "userfaultfd": Attack("call(NR_userfaultfd, 0)"),
    "secret memory": Attack("call(NR_memfd_secret, 0)"),
    "splice": Attack("call(NR_vmsplice, 1, None, 0, 0)"),
    "personality": Attack("call(NR_personality, 0x0040000)"),
    "filter of its own": Attack("call(NR_seccomp, 1, 0, bytes(16))"),
    "setuid program": Attack("os.execv('/bin/su', ['su'])"),
    "shell": Attack("import subprocess\nprint(subprocess.run(['sh', '-c', 'echo LEAKED'], capture_output=True).stdout)"),
    "another interpreter": Attack("os.execv({python}, ['python', '-c', 'print(\"LEAKED\")'])"),
    "execveat": Attack("call(NR_execveat, -100, b'/bin/true', None, None, 0)"),
    "become root": Attack("os.setuid(0)"),
    "become somebody": Attack("os.setresuid(1, 1, 1)"),
    "groups": Attack("os.setgroups([0])"),
    "capabilities": Attack("import struct\ncheck(libc.capset(struct.pack('=Ii', 0x20080522, 0), b'\\xff' * 24))"),
    "gain privileges again": Attack("check(libc.prctl(38, 0, 0, 0, 0))"),
    "outlive the parent": Attack("check(libc.prctl(1, 0, 0, 0, 0))"),
    "daemon": Attack("if os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\ntime.sleep(60)"),
    "session of its own": Attack("os.setsid()"),
    "group of its own": Attack("os.setpgid(0, 0)"),
}
"""Name of an attack and its program; the 38 kinds of the threat model's list and their relatives."""
