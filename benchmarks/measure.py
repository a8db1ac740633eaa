"""What the benchmarks share: running a command, timing BPF programs, a busy machine, a table."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SAMPLES = Path(__file__).resolve().parent.parent / "build" / "samples"
PYPROF = str(Path(sys.executable).with_name("pyprof"))
BPF_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")


class FailedRun(Exception):  # noqa: N818 - an event, counted
    """A command failed."""


class Run(NamedTuple):
    """One finished command."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def sample_cost_ns(command: Sequence[str], program: str) -> float:
    """Return the mean run time of the perf-event program that a command loads."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(3)
    loaded = json.loads(subprocess.run(["bpftool", "-j", "prog"], capture_output=True, check=True).stdout)
    process.wait()
    mine = [one for one in loaded if one["type"] == "perf_event" and program in (one.get("name"), "")]
    best = max(mine, key=lambda one: one.get("run_cnt", 0))
    return float(best["run_time_ns"] / best["run_cnt"])


def timed(command: Sequence[str]) -> Run:
    """Run a command and return what it took."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise FailedRun(f"{command[0]} failed with status {process.returncode}")
    return Run(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def total(runs: list[Run]) -> Run:
    return Run(
        sum(run.seconds for run in runs),
        sum(run.cpu_seconds for run in runs),
        max(run.peak_mb for run in runs),
    )


@contextmanager
def busy(*programs: str) -> Iterator[None]:
    """Keep CPUs busy with sample programs meanwhile."""
    arguments = {"shares": ["600"], "many_stacks": ["2000", "600"]}
    running = [subprocess.Popen([str(SAMPLES / program), *arguments[program]]) for program in programs]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


@contextmanager
def bpf_stats() -> Iterator[None]:
    """Let the kernel time BPF programs meanwhile."""
    before = BPF_STATS.read_text()
    BPF_STATS.write_text("1")
    try:
        yield
    finally:
        BPF_STATS.write_text(before)


def table(title: str, columns: list[str], rows: dict[str, list[float]]) -> None:
    """Print a Markdown table; the last column is the ratio to the first row's first value."""
    print(f"\n{title}\n")
    print(f"| | {' | '.join(columns)} | ratio |\n|---|{'---:|' * (len(columns) + 1)}")
    first = next(iter(rows.values()))[0]
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(f'{value:.4g}' for value in values)} | {values[0] / first:.2f} |")
    sys.stdout.flush()


median: Callable[[list[float]], float] = statistics.median
