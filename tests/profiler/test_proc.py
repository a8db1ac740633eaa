"""Readers of /proc, on a folder that the test writes."""

import os
from pathlib import Path

import pytest

from pyprof.profiler import proc

MAPS = """\
55d0c0a00000-55d0c0a02000 r--p 00000000 fe:01 1181                       /usr/bin/a name (deleted)
55d0c0a02000-55d0c0a1c000 r-xp 00002000 fe:01 1181                       /usr/bin/a name (deleted)
7f0000000000-7f0000001000 rwxp 00000000 00:00 0
7ffc0b9f0000-7ffc0b9f2000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def test_executable_mappings_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "maps").write_text(MAPS)
    first, anonymous, vdso, _ = proc.executable_mappings(7, proc=str(tmp_path))
    assert first.mapping == (0x55D0C0A02000, 0x55D0C0A1C000, 0x2000, "/usr/bin/a name", "")
    assert (first.device, first.inode) == (os.makedev(0xFE, 1), 1181)
    assert anonymous.mapping.path == "//anon"
    assert vdso.mapping.path == "[vdso]"


def test_mappings_come_from_a_thread_when_the_main_thread_has_gone(tmp_path: Path) -> None:
    (tmp_path / "7" / "task" / "8").mkdir(parents=True)
    (tmp_path / "7" / "maps").write_text("")
    (tmp_path / "7" / "task" / "8" / "maps").write_text(MAPS)
    assert len(proc.executable_mappings(7, proc=str(tmp_path))) == 4


def test_process_that_has_gone_has_no_mappings_and_no_start(tmp_path: Path) -> None:
    assert proc.executable_mappings(7, proc=str(tmp_path)) == []
    assert proc.start_ticks(7, proc=str(tmp_path)) == 0


def test_start_time_is_found_behind_a_hostile_comm(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    fields = " ".join(str(number) for number in range(4, 53))
    (tmp_path / "7" / "stat").write_text(f"7 (a) b) (c) S {fields}\n")
    assert proc.start_ticks(7, proc=str(tmp_path)) == 22


def test_idle_time_counts_waiting_for_input_too(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(
        "cpu  1 2 3 4 5\ncpu0 10 0 10 100 11 0 0 0\ncpu3 1 0 1 7 0 0 0 0\nintr 1\n"
    )
    assert proc.idle_ns(proc=str(tmp_path)) == {0: 1_110_000_000, 3: 70_000_000}


@pytest.mark.parametrize(("text", "cpus"), [("0-3,8\n", (0, 1, 2, 3, 8)), ("0", (0,)), ("", ())])
def test_cpu_list_is_read(text: str, cpus: tuple[int, ...]) -> None:
    assert proc.parse_cpu_list(text) == cpus


def test_first_pid_namespace_is_0() -> None:
    is_first = Path("/proc/self/ns/pid").stat().st_ino == proc.INIT_PID_NAMESPACE
    assert (proc.pid_namespace() == 0) == is_first


def test_carriage_return_in_a_path_begins_no_line(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "maps").write_bytes(b"1000-2000 r-xp 00000000 fe:01 7    /a\rb r-xp c\nnonsense\n")
    (only,) = proc.executable_mappings(7, proc=str(tmp_path))
    assert only.mapping.path == "/a\rb r-xp c"


def test_time_namespace_shifts_start_times(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "7").mkdir()
    (tmp_path / "self" / "timens_offsets").write_text("monotonic  0  0\nboottime  100  500000000\n")
    fields = " ".join(["20000"] * 49)
    (tmp_path / "7" / "stat").write_text(f"7 (a) S {fields}\n")
    assert proc.start_ticks(7, proc=str(tmp_path)) == 20000 - 10050
