"""Take from this process whatever parsing a hostile file does not need.

Source: man 2 prctl, setresuid, getrlimit; man 7 capabilities.
"""

import ctypes
import os
import resource
import signal
from collections.abc import Collection

NOBODY = 65_534  # uid and gid that own nothing

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


class ConfinementError(Exception):
    """A privilege could not be given up; nothing hostile may be read now."""


def confine(keep: Collection[int], *, memory_bytes: int, mapping_bytes: int, cpu_s: int, parent: int) -> None:
    """Give up privileges, open files and resources, for good.

    keep: descriptors that stay open; 0 to 2 lead to /dev/null unless they are among them.
    memory_bytes: that the process may take beyond what it has. mapping_bytes: of files, mapped at a time.
    cpu_s: processor time.
    parent: process id; this process is killed when the parent ends.

    Raises: ConfinementError, and OSError when the kernel refuses.
    """
    _close_descriptors(keep)
    space_bytes, data_bytes = _memory_in_use()
    _drop_root()
    _limit(resource.RLIMIT_DATA, data_bytes + memory_bytes)
    _limit(resource.RLIMIT_AS, space_bytes + memory_bytes + mapping_bytes)
    _limit(resource.RLIMIT_CPU, cpu_s)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_NOFILE, max(keep, default=2) + 16)  # mmap duplicates its descriptor
    _set_process_flags()
    if os.getppid() != parent:  # it ended before the death signal was asked for
        raise ConfinementError("parent has ended")


def _set_process_flags() -> None:
    """Die with the parent, gain no privileges, be traced by nobody: not even by others of this user.

    To be called after the change of user, which clears the first.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1))
    for option, value in flags:
        if libc.prctl(option, *(ctypes.c_ulong(number) for number in (value, 0, 0, 0))) != 0:
            raise ConfinementError(f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def _close_descriptors(keep: Collection[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in {0, 1, 2} - set(keep):
        os.dup2(null, descriptor)
    for descriptor in [int(name) for name in os.listdir("/proc/self/fd")]:
        if descriptor > 2 and descriptor not in keep:
            try:
                os.close(descriptor)
            except OSError:  # the one that listed the folder is closed already
                continue


def _memory_in_use() -> tuple[int, int]:
    """Return the bytes of address space and of writable memory that this process has."""
    # "51234 9876 4321 1 0 30000 0": size resident shared text lib data dirty, in pages
    with open("/proc/self/statm", "rb") as file:
        fields = file.read().split()
    return int(fields[0]) * resource.getpagesize(), int(fields[5]) * resource.getpagesize()


def _drop_root() -> None:
    if os.geteuid() != 0:
        return
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    if {*os.getresuid(), *os.getresgid()} != {NOBODY} or os.getgroups():
        raise ConfinementError("root was not dropped")


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
