"""Go's own pprof reads our files and prints what we wrote; we read what it writes.

Debian has it in golang-go. Only symbolization is turned off: the addresses here belong to no real file.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pyprof.profiler.profile import Mapping, Profile, ProfileSample, Provenance
from pyprof.render.pprof import encode_pprof
from pyprof.render.pprof_reader import decode_pprof
from pyprof.symbolize.frame import Frame, FrameKind

pytestmark = pytest.mark.skipif(
    shutil.which("go") is None, reason="go is not installed (apt install golang-go)"
)

PROFILE = Profile(
    unit="samples",
    samples=(
        ProfileSample((0, 1, 2), 60, "app", 7, 8),
        ProfileSample((0, 3), 30, "app", 7, 9),
        ProfileSample((0, 4), 6, "idle worker", 7, 9),
        ProfileSample((0, 5), 3, "app", 7, 8),
        ProfileSample((6,), 1, "app"),
    ),
    frames=(
        Frame("main", FrameKind.USER, "/opt/pyprof-test/app", 0x1234, 0, 12, "main.c"),
        Frame("work", FrameKind.USER, "/opt/pyprof-test/app", 0x1300, 0, 30, "work.c"),
        Frame("square", FrameKind.INLINED, "/opt/pyprof-test/app", 0x1300, 0, 5, "square.h"),
        Frame("schedule", FrameKind.KERNEL, "", 0xFFFFFFFF81000010),
        Frame("nf_hook", FrameKind.KERNEL, "nf_conntrack", 0xFFFFFFFFC0000010),
        Frame("[libc.so.6+0x27000]", FrameKind.USER, "/opt/pyprof-test/libc.so.6", 0x27000, 1),
        Frame("[lost: stack map full]", FrameKind.NOTE),
    ),
    mappings=(
        Mapping(0x1000, 0x9000, 0x1000, "/opt/pyprof-test/app", "abcdef0123"),
        Mapping(0x26000, 0x17B000, 0x26000, "/opt/pyprof-test/libc.so.6"),
    ),
    provenance=Provenance(
        mode="cpu", event="cpu-clock", period=10_000_000, duration_ns=2_000_000_000, host="web-3"
    ),
)


def go_pprof(folder: Path, *arguments: str) -> str:
    """Return what `go tool pprof` prints about PROFILE."""
    (folder / "profile.pb.gz").write_bytes(encode_pprof(PROFILE))
    environment = os.environ | {"HOME": str(folder), "PPROF_TMPDIR": str(folder), "TZ": "UTC"}
    command = ["go", "tool", "pprof", "-symbolize=none", *arguments, "profile.pb.gz"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "part",
    [
        r"Comment: pyprof: unit=samples Comment: pyprof: mode=cpu",
        r"PeriodType: cpu nanoseconds Period: 10000000",
        r"samples/count cpu/nanoseconds\[dflt\]",
        r"60 600000000: 1 2 comm:\[app\] pid:\[7\] tid:\[8\]",
        r"comm:\[idle worker\]",
        r"1: 0x1300 M=1 square square\.h:5\S* s=0 work work\.c:30\S* s=0",
        r"0xffffffff81000010 M=\d schedule ",
        r"0xffffffffc0000010 M=\d nf_hook ",
        r"0x27000 M=\d \d: ",
        r"0x0 \[lost: stack map full\] ",
        r"1: 0x1000/0x9000/0x1000 /opt/pyprof-test/app abcdef0123 \[FN\]\[FL\]\[LN\]\[IN\]",
        r"0x26000/0x17b000/0x26000 /opt/pyprof-test/libc\.so\.6 *(\d:|$)",
        r"\[kernel\.kallsyms\] \[FN\] ",
        r"\[nf_conntrack\] \[FN\] ",
    ],
)
def test_go_prints_what_we_wrote(part: str, tmp_path: Path) -> None:
    assert re.search(part, " ".join(go_pprof(tmp_path, "-raw").split()))


def test_go_counts_time_as_we_do(tmp_path: Path) -> None:
    text = " ".join(go_pprof(tmp_path, "-top", "-nodecount=100").split())
    assert "Duration: 2s, Total samples = 1000ms (50.00%)" in text
    assert (
        "600ms 60.00% 60.00% 600ms 60.00% square (inline) 300ms 30.00% 90.00% 300ms 30.00% schedule" in text
    )
    assert "0 0% 100% 990ms 99.00% main 0 0% 100% 600ms 60.00% work" in text


def test_go_counts_samples_on_request(tmp_path: Path) -> None:
    assert "of 100 total" in go_pprof(tmp_path, "-top", "-sample_index=samples")


def test_what_go_writes_is_the_same_profile(tmp_path: Path) -> None:
    go_pprof(tmp_path, "-proto", "-output=again.pb.gz")
    again = decode_pprof((tmp_path / "again.pb.gz").read_bytes())
    assert again.provenance == PROFILE.provenance
    assert again.unit == PROFILE.unit
    assert shown(again) == shown(PROFILE)


def shown(profile: Profile) -> dict[tuple[str, int, int, tuple[Frame, ...]], int]:
    """Return the values of stacks of frames, without the indices of mappings."""
    return {
        (
            sample.comm,
            sample.pid,
            sample.tid,
            tuple(profile.frames[index]._replace(mapping=0) for index in sample.stack),
        ): sample.value
        for sample in profile.samples
    }
