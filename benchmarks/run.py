"""Measure pyprof beside its peers: start, cost of a sample, end to picture, memory.

Usage: python benchmarks/run.py [--runs N]        (as root; `make bench`)

Runs are interleaved, medians are printed, and a claim is a ratio within one table: the machine may be
shared and noisy. A peer that is not installed has no row.
"""

import argparse
import html
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from measure import (
    PYPROF,
    SAMPLES,
    FailedRun,
    Run,
    bpf_stats,
    busy,
    median,
    sample_cost_ns,
    table,
    timed,
    total,
)

from pyprof.render.pprof_reader import decode_pprof

BPFTRACE = "profile:hz:49 { @[ustack, kstack, comm, pid] = count(); } interval:s:1 { exit(); }"
BPFTRACE_LONG = "profile:hz:999 { @[ustack, kstack, comm, pid] = count(); } interval:s:4 { exit(); }"


class Peer(NamedTuple):
    """A way to take a capture of one second."""

    name: str
    commands: tuple[tuple[str, ...], ...]  # run one after the other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each command (default 5)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        benchmark_help(runs)
        benchmark_start(runs, Path(folder))
        benchmark_capture(runs, Path(folder))
        benchmark_sample(max(runs // 2, 1))
        benchmark_end(runs, Path(folder))


def benchmark_help(runs: int) -> None:
    """Print how long `pyprof --help` takes, beside the interpreter alone."""
    rows = {
        "python -c pass": [timed([sys.executable, "-c", "pass"]).seconds for _ in range(runs)],
        "pyprof --help": [timed([PYPROF, "--help"]).seconds for _ in range(runs)],
    }
    table("Start without a capture", ["ms"], {name: [1000 * median(values)] for name, values in rows.items()})


def benchmark_start(runs: int, folder: Path) -> None:
    """Print how long after its process starts pyprof's events are attached."""
    path = folder / "start.pb.gz"
    delays = []
    for _ in range(runs):
        began_ns = time.time_ns()
        timed([PYPROF, "cpu", "0.2", "-q", "-o", str(path)])
        delays.append((decode_pprof(path.read_bytes()).provenance.started_unix_ns - began_ns) / 1e6)
    table("From process start to attached events", ["ms"], {"pyprof cpu": [median(delays)]})


def benchmark_capture(runs: int, folder: Path) -> None:
    """Print what a capture of one second costs beyond its second, on a busy machine."""
    data = str(folder / "perf.data")
    peers = [
        Peer("pyprof cpu 1 -o x.svg", ((PYPROF, "cpu", "1", "-q", "-o", str(folder / "x.svg")),)),
        Peer("bpftrace profile", (("bpftrace", "-q", "-e", BPFTRACE),)),
        Peer(
            "perf record -g + script",
            (
                ("perf", "record", "-q", "-e", "cpu-clock", "-F", "49", "-a", "-g", "-o", data, "sleep", "1"),
                ("perf", "script", "-i", data, "--no-inline"),
            ),
        ),
        Peer("bcc profile", (("profile-bpfcc", "-F", "49", "-f", "1"),)),
    ]
    peers = [peer for peer in peers if works(peer.name, peer.commands[0])]
    results: dict[str, list[Run]] = {peer.name: [] for peer in peers}
    with busy("shares"):
        for _ in range(runs):
            for peer in peers:
                try:
                    results[peer.name].append(total([timed(command) for command in peer.commands]))
                except FailedRun as error:
                    print(f"\n{error}: one run less")
    rows = {}
    for name, measured in results.items():
        extra = median([run.seconds for run in measured]) - 1
        cpu = median([run.cpu_seconds for run in measured])
        rows[name] = [extra, cpu, median([run.peak_mb for run in measured])]
    table("A capture of 1 s at 49 Hz, one CPU busy", ["s beyond it", "CPU s", "peak MB"], rows)


def benchmark_sample(runs: int) -> None:
    """Print the time in the kernel of one sample of a program with frame pointers."""
    pyprof = (PYPROF, "cpu", "-F", "999", "-q", "-o", "/dev/null", "4")
    tools = {"pyprof": (pyprof, "sample_cpu")}
    if works("bpftrace", ("bpftrace", "-q", "-e", BPFTRACE)):
        tools["bpftrace"] = (("bpftrace", "-q", "-e", BPFTRACE_LONG), "")
    if works("bcc profile", ("profile-bpfcc", "-f", "1")):
        tools["bcc profile"] = (("profile-bpfcc", "-F", "999", "-f", "4"), "do_perf_event")
    costs: dict[str, list[float]] = {name: [] for name in tools}
    with bpf_stats(), busy("shares", "shares"):
        for _ in range(runs):
            for name, (command, program) in tools.items():
                costs[name].append(sample_cost_ns(command, program))
    rows = {name: [median(values)] for name, values in costs.items()}
    table("In-kernel cost of a sample at 999 Hz, two CPUs busy, frame pointers", ["ns"], rows)


def benchmark_end(runs: int, folder: Path) -> None:
    """Print the time from the end of a capture of about 2,000 distinct stacks to the finished SVG."""
    svg, saved = folder / "end.svg", folder / "end.pb.gz"
    ends, stacks = [], 0
    for _ in range(runs):
        command = [PYPROF, "cpu", "-F", "1000", "-q", "--", str(SAMPLES / "many_stacks"), "1250", "4"]
        timed([*command[:5], "-o", str(saved), *command[5:]])
        stacks = len(decode_pprof(saved.read_bytes()).samples)
        timed([*command[:5], "-o", str(svg), *command[5:]])
        finished_ns = time.time_ns()
        metadata = svg.read_text().partition("<metadata>")[2].partition("</metadata>")[0]
        provenance = json.loads(html.unescape(metadata))["provenance"]
        ends.append((finished_ns - provenance["started_unix_ns"] - provenance["duration_ns"]) / 1e6)
    table(
        f"From the end of a capture to its SVG, {stacks:,} distinct stacks",
        ["ms"],
        {"pyprof": [median(ends)]},
    )


def works(name: str, command: Sequence[str]) -> bool:
    """Return whether a peer is installed and runs here; say so when it does not."""
    if not shutil.which(command[0]):
        print(f"\n{name} is not installed: no row")
        return False
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if result.returncode:
        print(f"\n{name} fails here: {result.stderr.decode().strip().splitlines()[-1]}")
    return result.returncode == 0


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a benchmark of the compiler it would be
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
