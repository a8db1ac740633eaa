import json
import os
import resource
import signal
from collections.abc import Callable
from typing import Any

import pytest

from pyprof.symbolize.sandbox import NOBODY, confine

MIB = 1 << 20


def _confined(probe: Callable[[], object], keep: set[int] | None = None) -> Any:
    """Return what `probe` returns in a confined child."""
    read_end, write_end = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            confine(
                {write_end, *(keep or ())}, memory_bytes=256 * MIB, mapping_bytes=0, cpu_s=5, parent=parent
            )
            os.write(write_end, json.dumps(probe()).encode())
        except BaseException as error:
            os.write(write_end, json.dumps(repr(error)).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with open(read_end, "rb") as file:
        return json.loads(file.read())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to drop")
def test_root_becomes_nobody_for_good() -> None:
    def probe() -> object:
        try:
            os.setuid(0)
        except PermissionError:
            return [*os.getresuid(), *os.getresgid(), *os.getgroups()]
        return "root came back"

    assert _confined(probe) == [NOBODY] * 6


def _open_descriptors() -> list[int]:
    found = []
    for descriptor in range(256):
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        found.append(descriptor)
    return found


def test_only_the_descriptors_that_were_named_stay_open() -> None:
    read_end, write_end = os.pipe()
    try:
        # 0 to 2 and the pipe to this process
        assert len(_confined(_open_descriptors)) == 4
        found = _confined(_open_descriptors, {read_end})
        assert len(found) == 5
        assert read_end in found
        assert write_end not in found
    finally:
        os.close(read_end)
        os.close(write_end)


def test_standard_streams_lead_nowhere() -> None:
    def probe() -> object:
        return [os.fstat(descriptor).st_rdev == os.stat(os.devnull).st_rdev for descriptor in (0, 1, 2)]

    assert _confined(probe) == [True] * 3


def test_limits_hold() -> None:
    def probe() -> object:
        kinds = (resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC)
        try:
            bytes(512 * MIB)  # what malloc keeps of freed memory comes on top of the 256
        except MemoryError:
            return [resource.getrlimit(kind)[1] for kind in kinds]
        return "too much memory"

    assert _confined(probe) == [5, 0, 0, 0]


def test_the_child_cannot_gain_privileges_and_dies_with_its_parent() -> None:
    def probe() -> object:
        import ctypes

        libc, number = ctypes.CDLL(None), ctypes.c_int()
        libc.prctl(2, ctypes.byref(number), 0, 0, 0)  # PR_GET_PDEATHSIG
        return [number.value, libc.prctl(39, 0, 0, 0, 0), libc.prctl(3, 0, 0, 0, 0)]  # NO_NEW_PRIVS, DUMPABLE

    assert _confined(probe) == [signal.SIGKILL, 1, 0]
