"""Walks of live programs' stacks against the unwinder of perf: the same samples, frame by frame.

perf 6.1 at times finds no call frame information of a library once one program has executed another, so each
program here is one process.
Where it gives up it shows the leaf's side of the stack; such a sample is not compared.
"""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from perfdata import PerfData, perf_data, script_stacks

from pyprof.symbolize.stack_copy import Walk, WalkEnd
from pyprof.symbolize.stack_unwinder import StackUnwinder
from pyprof.symbolize.vdso import vdso_image

pytestmark = pytest.mark.bpf  # sampling the stacks of a program, its part in the kernel included, needs root

RECURSION = r"""
#include <alloca.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define FUNCTION static __attribute__((noinline)) long

static volatile long sink;

FUNCTION leaf(long n) { long sum = 0; for (long i = 0; i < n; i++) sum += i * i ^ sink; return sink = sum; }
FUNCTION sized(long n)
{
	char *b = alloca(n * 8 + 16);

	memset(b, 1, n * 8);
	return n ? sized(n - 1) + b[n] : leaf(3000);
}
FUNCTION aligned(long n) { _Alignas(64) char b[256]; memset(b, n, 256); return sized(n) + leaf(1000) + b[n]; }
FUNCTION deep(long n) { if (!n) return aligned(5); long r = deep(n - 1); leaf(2000); return r + 1; }
static int order(const void *a, const void *b) { leaf(30); return *(const int *)a - *(const int *)b; }
static void handler(int signal) { deep(20); }

int main(void)
{
	struct itimerval timer = {{0, 5000}, {0, 5000}};
	int numbers[1000];

	signal(SIGALRM, handler);
	setitimer(ITIMER_REAL, &timer, 0);
	for (int round = 0; round < 300; round++) {
		deep(40);
		for (int i = 0; i < 1000; i++)
			numbers[i] = rand();
		qsort(numbers, 1000, sizeof numbers[0], order);
	}
	return 0;
}
"""
PYTHON = (
    "import json\nfor _ in range(4): json.loads(json.dumps([{str(i): i} for i in range(40000)], indent=1))"
)
PERL = "my %h; for my $i (1..400000) { $h{$i % 1000} .= join(',', map { $_ * 2 } 1..3) } print sort values %h"
NUMBERS = "\n".join(str(number * 7919 % 400_009) for number in range(400_000))


def compiled(folder: Path) -> list[str]:
    (folder / "recursion.c").write_text(RECURSION)
    flags = ("-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls")
    subprocess.run(["gcc", *flags, "-o", "recursion", "recursion.c"], check=True, cwd=folder)
    return [str(folder / "recursion")]


def numbered(*command: str) -> Callable[[Path], list[str]]:
    def with_file(folder: Path) -> list[str]:
        (folder / "numbers").write_text(NUMBERS)
        return [*command, str(folder / "numbers")]

    return with_file


PROGRAMS: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "sort": ("sort", numbered("sort", "--parallel=1")),
    "xz": ("xz", numbered("xz", "-2", "-k", "-c", "-T1")),
    "perl": ("perl", lambda _: ["perl", "-e", PERL]),
    "python": ("/usr/bin/python3", lambda _: ["/usr/bin/python3", "-c", PYTHON]),
    "recursion": ("gcc", compiled),
}


def recorded(command: Sequence[str], folder: Path) -> tuple[PerfData, dict[tuple[int, int], tuple[int, ...]]]:
    """Return the samples of a command, and what perf makes of them."""
    data = folder / "perf.data"
    record = ("perf", "record", "-q", "-e", "cpu-clock", "-F", "499", "--call-graph", "dwarf,32768")
    subprocess.run([*record, "-o", str(data), *command], check=True, cwd=folder, stdout=subprocess.DEVNULL)
    script = ("perf", "script", "-i", str(data), "--no-inline", "--ns", "-F", "tid,time,ip")
    output = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    return perf_data(data), script_stacks(output)


def image(path: str) -> bytes | None:
    if path == "[vdso]":
        return vdso_image()
    return Path(path).read_bytes() if Path(path).is_file() else None


def as_perf_prints(walk: Walk) -> tuple[int, ...]:
    """Return the addresses of a walk in the form of perf: file offsets, those of callers inside the call."""
    return tuple(address - (index not in walk.exact) for index, (_, address) in enumerate(walk.frames))


@pytest.mark.parametrize("name", PROGRAMS)
def test_frames_are_those_of_perf(name: str, tmp_path: Path) -> None:
    tool, command = PROGRAMS[name]
    if not shutil.which("perf") or not shutil.which(tool):
        pytest.skip(f"perf or {tool} is not installed")
    data, theirs = recorded(command(tmp_path), tmp_path)
    unwinder = StackUnwinder([image(path) for path in data.paths])
    walks = [unwinder.walk(sample.copy) for sample in data.samples]
    pairs = [
        (as_perf_prints(walk), theirs[sample.tid, sample.time_ns])
        for walk, sample in zip(walks, data.samples, strict=True)
    ]
    compared = [
        (ours, perfs) for ours, perfs in pairs if not (len(perfs) < len(ours) and ours[: len(perfs)] == perfs)
    ]
    equal = sum(ours == perfs for ours, perfs in compared)
    assert len(walks) >= 30
    assert len(compared) >= 0.9 * len(pairs), "perf gave up"
    assert equal >= 0.99 * len(compared)
    assert sum(walk.end is WalkEnd.COMPLETE for walk in walks) >= 0.98 * len(walks)
