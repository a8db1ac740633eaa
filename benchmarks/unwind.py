"""Measure the walk of user stacks along unwind tables: cost of a frame, tables, start, user space.

Usage: python benchmarks/unwind.py [--runs N] [--seconds S]        (as root; part of `make bench`)

Costs of the two ways to walk are of one run and one program, whose functions all keep frame pointers.
"""

import argparse
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measure import PYPROF, SAMPLES, bpf_stats, median, sample_cost_ns, table

from pyprof.symbolize.frame_section import frame_section
from pyprof.symbolize.layout import elf_layout
from pyprof.symbolize.unwind_table import UnwindTable, parsed, serialised, source_digest, unwind_table

LARGEST = sorted(Path("/usr/lib").glob("**/libLLVM*.so*"), key=lambda path: path.stat().st_size)[-1:]
TICKS_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of each command (default 3)")
    parser.add_argument("--seconds", type=int, default=20, help="length of the long capture (default 20)")
    arguments = parser.parse_args()
    benchmark_frame(2 * arguments.runs)
    benchmark_table(arguments.runs)
    with tempfile.TemporaryDirectory() as folder:
        benchmark_ready(arguments.runs, Path(folder))
    benchmark_user_space(arguments.seconds)


def benchmark_frame(runs: int) -> None:
    """Print what a sample and one of its frames cost in the kernel, by both ways to walk in turn."""
    depths, walks = (10, 46, 100), ("fp", "dwarf")
    costs: dict[tuple[str, int], list[float]] = {(walk, depth): [] for depth in depths for walk in walks}
    with bpf_stats():
        for _ in range(runs):
            for (walk, depth), values in costs.items():
                command = (PYPROF, "cpu", "-F", "999", "-U", "-q", "--unwind", walk, "-o", "/dev/null", "--")
                program = (str(SAMPLES / "recursion_fp"), str(depth), "4")
                values.append(sample_cost_ns((*command, *program), "sample_cpu"))
    rows = {}
    for walk in walks:
        of_depth = [min(costs[walk, depth]) for depth in depths]  # what others on the machine add, left out
        rows[f"--unwind {walk}"] = [(of_depth[2] - of_depth[0]) / (depths[2] - depths[0]), *of_depth]
    table(
        f"In-kernel cost of a sample at 999 Hz, by depth, best of {runs} runs",
        ["ns a frame", *(f"ns, {depth} frames and some" for depth in depths)],
        rows,
    )


def benchmark_table(runs: int) -> None:
    """Print how long the table of the largest library takes, built and checked."""
    for path in LARGEST:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as image:
            built = [seconds(partial(built_table, image)) for _ in range(runs)]
            data = built_table(image)
            loaded = [seconds(partial(loaded_table, image, data)) for _ in range(runs)]
        rows = {"built": [1000 * median(built)], "from the cache": [1000 * median(loaded)]}
        table(f"Unwind table of {path.name}, {len(data) >> 10:,} KiB", ["ms"], rows)


def built_table(image: mmap.mmap) -> bytes:
    layout = elf_layout(image)
    return serialised(unwind_table(image, layout), digest(image))


def loaded_table(image: mmap.mmap, data: bytes) -> UnwindTable:
    return parsed(data, digest(image))


def digest(image: mmap.mmap) -> bytes:
    layout = elf_layout(image)
    section = frame_section(image, layout)
    return source_digest(image, layout, section) if section else b""


def benchmark_ready(runs: int, folder: Path) -> None:
    """Print how long after its start `pyprof cpu -p` walks a Python process in the kernel."""
    process = subprocess.Popen([sys.executable, "-c", "while 1: sum(range(1000))"])
    rows: dict[str, list[float]] = {}
    try:
        for name, is_cold in (("cold cache", True), ("warm cache", False)):
            delays = []
            for run in range(runs):
                cache = folder / (f"cold{run}" if is_cold else "warm")
                delays.append(ready_ms(process.pid, cache))
            rows[name] = [median(delays)]
    finally:
        process.kill()
        process.wait()
    table("From process start to the first sample of CPython that the kernel walks whole", ["ms"], rows)


def ready_ms(pid: int, cache: Path) -> float:
    """Return the time until samples are no more handed over to user space."""
    began = time.monotonic()
    code = READY.format(pid=pid)
    environment = os.environ | {"PYPROF_CACHE": str(cache)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return 1000 * (float(result.stdout) - began)


# The command line's own session, with a look at the counters every 5 ms.
READY = """
import time
from pyprof.profiler.cpu import CpuSampler
from pyprof.profiler.libbpf_engine import LibbpfEngine
from pyprof.profiler.engine import Target
from pyprof.profiler.settings import Settings, Targets
settings = Settings(period=1000000, frequency_hz=1000, duration_s=5, targets=Targets(pids=({pid},)))
sampler = CpuSampler(settings, LibbpfEngine())
sampler.start([Target({pid})])
sampler.tracker.snapshot([{pid}])
last, before = time.monotonic(), sampler.stats()
while time.monotonic() - last < 0.7:
    for source in sampler.sources:
        source.drain()
    time.sleep(0.005)
    stats = sampler.stats()
    if stats.copied != before.copied or stats.counted == before.counted:
        last = time.monotonic()
    before = stats
sampler.close()
print(last)
"""


def benchmark_user_space(length_s: int) -> None:
    """Print the CPU time and memory of a capture of the whole machine at 99 Hz, once it has settled."""
    load = subprocess.Popen([sys.executable, "-c", "while 1: sum(range(1000))"])
    command = [PYPROF, "cpu", "-F", "99", "-q", "-o", "/dev/null", "--format", "svg", str(length_s + 4)]
    process = subprocess.Popen(command)
    try:
        time.sleep(2)
        before = cpu_s(process.pid)
        time.sleep(length_s)
        share = (cpu_s(process.pid) - before) / length_s
    finally:
        load.kill()
        load.wait()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    rows = {"pyprof cpu -F 99": [100 * share, usage.ru_maxrss / 1024]}
    table("User space of a capture of the whole machine", ["% of a CPU", "peak MB"], rows)


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process and its children so far."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if folder.name == str(pid) or fields[1] == str(pid):
            total += sum(map(int, fields[11:15] if folder.name == str(pid) else fields[11:13]))
    return total / TICKS_S


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
