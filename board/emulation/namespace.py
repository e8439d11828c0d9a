"""Entering the tree through namespaces: no root, no ptrace, nothing of the host is changed.

The kernel starts aarch64 programs by itself: from Linux 6.7 on a user namespace has a binfmt_misc of its own,
before that the host's handler for qemu-aarch64 serves, if it has flag F. Processes, outermost first: the
caller; `_outer`, owner of the namespaces; `_init`, pid 1, whose end takes all others along; the command.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import relay
from job import HOME, Job, Unavailable, find_qemu

if TYPE_CHECKING:
    from collections.abc import Callable

NEWNS, NEWUSER, NEWPID = 0x00020000, 0x10000000, 0x20000000
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


def run(job: Job) -> int:
    """Run JOB; its exit status. `Unavailable` if the kernel refused before the command started."""
    find_qemu()
    reader, writer = os.pipe()
    mask = relay.block()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _guard(writer, lambda: _outer(job, writer, mask))
    os.close(writer)
    with os.fdopen(reader) as pipe:
        reason = pipe.read()
    status = relay.wait(pid)
    if reason:
        raise Unavailable(f"namespaces: {reason}")
    return status


def _guard(report: int, body: Callable[[], NoReturn]) -> NoReturn:
    """Run BODY in a forked child, whose edge this is: whatever it raises becomes a line for the parent."""
    try:
        body()
    except OSError as error:
        os.write(report, f"{error.filename or 'set-up'}: {error.strerror}".encode())
    except Exception as error:
        os.write(report, repr(error).encode())
    finally:
        os._exit(125)


def _outer(job: Job, report: int, mask: set[int]) -> NoReturn:
    user, group = os.getuid(), os.getgid()
    new = job.root.parent / "mnt"
    # Two user namespaces, one in the other: only a user 0 may teach the kernel, and inside the user is the
    # caller again.
    _unshare(NEWUSER | NEWNS, f"0 {user} 1", f"0 {group} 1")
    _teach_kernel(new)
    _unshare(NEWUSER | NEWNS | NEWPID, f"{user} 0 1", f"{group} 0 1")
    relay.die_with_parent()
    _assemble(job, new)
    pid = os.fork()
    if pid == 0:
        _guard(report, lambda: _init(job, new, report, mask))
    os.close(report)
    os._exit(relay.wait(pid))


def _unshare(what: int, users: str, groups: str) -> None:
    _check(relay.libc.unshare(what), "user namespace")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(users)
    Path("/proc/self/gid_map").write_text(groups)
    _mount("none", "/", flags=REC | PRIVATE)


def _init(job: Job, new: Path, report: int, mask: set[int]) -> NoReturn:
    relay.die_with_parent()
    _mount("proc", new / "proc", "proc", NOSUID | NODEV | NOEXEC)
    os.chroot(new)
    os.chdir(job.cwd)
    pid = os.fork()
    os.close(report)
    if pid == 0:
        relay.prepare_exec(mask)
        _exec(job.command, job.env)
    os._exit(relay.wait(pid))


def _exec(command: list[str], env: dict[str, str]) -> NoReturn:
    """As a shell would: 127 if there is no such program, 126 if it cannot be run."""
    status = 127
    for directory in [""] if "/" in command[0] else env["PATH"].split(":"):
        try:
            os.execve(os.path.join(directory, command[0]), command, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            status = 126
    what = "not found in the sysroot" if status == 127 else "cannot be executed"
    sys.stderr.write(f"{command[0]}: {what}\n")
    sys.stderr.flush()
    os._exit(status)


def _teach_kernel(place: Path) -> None:
    """Make the kernel start aarch64 programs with qemu; PLACE is any directory, to be covered afterwards."""
    qemu = find_qemu()
    if qemu is None:
        return
    try:
        _mount("binfmt_misc", place, "binfmt_misc")
    except OSError:
        if _host_handler():
            return
        raise
    # P: argv[0] stays as given. F: the emulator is opened now and need not be in the tree.
    (place / "register").write_text(f":rk-gemma-aarch64:M::{MAGIC}:{MASK}:{qemu}:PF")


def _host_handler() -> bool:
    for entry in Path("/proc/sys/fs/binfmt_misc").glob("*aarch64*"):
        lines = entry.read_text().splitlines()
        flags = next((line.split(":", 1)[1] for line in lines if line.startswith("flags:")), "")
        if "enabled" in lines and "F" in flags:
            return True
    return False


def _assemble(job: Job, new: Path) -> None:
    """A root on tmpfs that shows the tree read-only: what is left outside of the binds goes with it."""
    _mount("tmpfs", new, "tmpfs", NOSUID | NODEV, "mode=0755")
    for entry in job.root.iterdir():
        target = new / entry.name
        if entry.is_symlink():
            target.symlink_to(os.readlink(entry))
        else:
            target.mkdir()
            if entry.name in ("etc", "usr"):
                _bind(entry, target, read_only=not job.writable)
    (new / HOME.lstrip("/")).mkdir(parents=True)
    for source, inside in [(Path("/dev"), "/dev"), (Path("/sys"), "/sys"), *job.binds]:
        _bind(source, new / inside.lstrip("/"))


def _bind(source: Path, target: Path, *, read_only: bool = False) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(source, target, flags=BIND | REC)
    if read_only:
        # The kernel wants the flags that the mount has from outside kept.
        kept = os.statvfs(target).f_flag & (NOSUID | NODEV | NOEXEC)
        _mount("none", target, flags=BIND | REMOUNT | RDONLY | kept)


def _mount(source: str | Path, target: str | Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    words = [os.fsencode(word) or None for word in (source, target, kind)]
    status = relay.libc.mount(*words, flags, os.fsencode(options) or None)
    _check(status, f"mount {kind or 'bind'} {target}")


def _check(status: int, what: str) -> None:
    if status != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
