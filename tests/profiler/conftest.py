"""Fixtures for the tests of captures: what a test may not leave behind, small machines and mappings."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # in importlib mode pytest puts no test folder there

from cheader import Header, told_header

from pyprof.profiler import interrupts
from pyprof.profiler.diagnosis import CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN
from pyprof.profiler.proc import FileMapping
from pyprof.profiler.profile import Mapping

BOTH_CAPABILITIES = 1 << CAP_BPF | 1 << CAP_PERFMON
ALL_CAPABILITIES = BOTH_CAPABILITIES | 1 << CAP_SYS_ADMIN


@pytest.fixture
def as_root() -> None:
    """Skip the test for everybody else."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def small_disk(tmp_path: Path, as_root: None) -> Iterator[Path]:
    """Return a folder with room for 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def signals_kept() -> Iterator[None]:
    """Put the handlers of the signals that a capture collects back after the test."""
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def ended() -> Callable[[int], bool]:
    """Return a function that waits until a pidfd's process has ended, 10 seconds at most."""

    def wait(pidfd: int) -> bool:
        return bool(select.select([pidfd], [], [], 10)[0])

    return wait


@pytest.fixture(scope="session")
def mapped() -> Callable[..., FileMapping]:
    """Return a function that makes a file mapping: 0x1000 to 0x2000 of /bin/a unless told otherwise."""

    def make(
        path: str = "/bin/a",
        start: int = 0x1000,
        limit: int = 0x2000,
        *,
        file_offset: int = 0,
        build_id: str = "",
        inode: int = 0,
    ) -> FileMapping:
        return FileMapping(Mapping(start, limit, file_offset, path, build_id), 0, inode)

    return make


@pytest.fixture(scope="session")
def header(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Header:
    """Return bpf/unwind.h and bpf/cpu.h as a C compiler reads them."""
    return told_header(root / "bpf", tmp_path_factory.mktemp("header"))


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Return a function that writes the procfs and sysfs of a machine; its answer is for `machine_state`."""

    def make(
        *,
        capabilities: int = ALL_CAPABILITIES,
        seccomp: int = 0,
        paranoid: int = 2,
        lockdown: str = "[none] integrity confidentiality",
        has_btf: bool = True,
    ) -> dict[str, str]:
        files = {
            "proc/self/status": f"Name:\tpyprof\nCapEff:\t{capabilities:016x}\nSeccomp:\t{seccomp}\n",
            "proc/sys/kernel/perf_event_paranoid": f"{paranoid}\n",
        }
        if lockdown:
            files["sys/kernel/security/lockdown"] = f"{lockdown}\n"
        if has_btf:
            files["sys/kernel/btf/vmlinux"] = ""
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return {"proc": str(tmp_path / "proc"), "sys": str(tmp_path / "sys")}

    return make
