"""Which process, which program image: whatever processes do while they are sampled."""

import os
import shutil
import subprocess
import time
from collections import Counter

import pytest

pytestmark = pytest.mark.bpf

# mypy: disable-error-code="no-untyped-def"


def share_with(stacks: list[tuple[list[str], int]], name: str) -> float:
    """Return the share of the values whose stack holds a function."""
    counts: Counter[bool] = Counter()
    for names, value in stacks:
        counts[name in names] += value
    return counts[True] / counts.total()


def test_exec_during_start_up_is_named(pyprof_path, sample, background, capture) -> None:
    """The program starts at the moments in which pyprof opens its rings and loads its program."""
    script = "for i in $(seq 20); do " + sample("burst_static") + " 500 & sleep 0.02; done; wait"
    background("sh", "-c", script)
    captured = capture("-F", "997", "1.5")
    assert share_with(captured.names("burst_static"), "burst_work") > 0.9


def test_program_that_execs_is_named_by_each_image_in_its_time(capture, sample) -> None:
    program = f"{sample('burst_static')} 300; exec {sample('shares')} 1"
    captured = capture("-F", "499", "--", "sh", "-c", program)
    assert share_with(captured.names("shares"), "hot") == pytest.approx(0.6, abs=0.1)
    assert share_with(captured.names("burst_static"), "burst_work") > 0.9


def test_child_after_17000_others_is_profiled_like_the_first(capture, sample) -> None:
    """More children than the filter has room for (16,384): those that ended make room."""
    captured = capture("-F", "199", "--", sample("forks"), "17000")
    late = sum(value for names, value in captured.names("forks") if "late_child_work" in names)
    assert late == pytest.approx(199, rel=0.15)
    assert not any("could not be followed" in note for note in captured.profile.provenance.notes)


def test_page_mapped_anew_does_not_hide_the_rest_of_the_text(capture, sample) -> None:
    captured = capture("-F", "499", "--", sample("patched"), "1")
    assert share_with(captured.names("patched"), "caller_of_spin") > 0.9


def test_carriage_return_in_a_path_is_just_a_character(capture, sample, tmp_path, background) -> None:
    program = str(tmp_path / "a\rb")
    shutil.copy(sample("burst_static"), program)
    process = background(program, "3000")
    captured = capture("-F", "499", "-p", str(process.pid), "0.7")
    (comm,) = {one.comm for one in captured.profile.samples}
    assert comm == "a\\x0db"
    assert share_with(captured.names(comm), "burst_work") > 0.9


def test_nested_pid_namespace_finds_its_own_processes(pyprof_path, sample) -> None:
    inner = f"{sample('shares')} 20 & sleep 0.2; {pyprof_path} cpu -F 499 -f -p $! 1; kill $!"
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    result = subprocess.run(
        [*unshare, *unshare, "sh", "-c", inner], capture_output=True, text=True, check=False, timeout=60
    )
    assert "main;hot;spin" in result.stdout, result.stderr


def test_time_namespace_does_not_shift_the_filter(pyprof_path, sample) -> None:
    inner = f"{sample('shares')} 20 & sleep 0.2; {pyprof_path} cpu -F 499 -f -p $! 1; kill $!"
    command = ["unshare", "--time", "--fork", "--boottime", "100000", "sh", "-c", inner]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "main;hot;spin" in result.stdout, result.stderr


def test_command_has_the_callers_environment(pyprof) -> None:
    environment = {**os.environ, "DEBUGINFOD_URLS": "http://localhost:1"}
    environment.pop("OPENBLAS_NUM_THREADS", None)
    show = 'echo "$DEBUGINFOD_URLS" "${OPENBLAS_NUM_THREADS-unset}" >&2'
    result = pyprof("cpu", "-f", "--", "sh", "-c", show, env=environment)
    assert "http://localhost:1 unset" in result.stderr


@pytest.mark.parametrize(
    ("script", "words"), [("kill -40 $$", "was ended by signal 40"), ("kill -9 $$", "was ended by SIGKILL")]
)
def test_signal_that_ended_the_command_is_told(pyprof, script, words) -> None:
    result = pyprof("cpu", "-f", "--", "sh", "-c", script)
    assert words in result.stderr


def test_rare_events_find_room(pyprof) -> None:
    began = time.monotonic()
    result = pyprof("cpu", "-f", "-e", "page-faults", "--", "sh", "-c", "for i in 1 2 3 4 5; do ls; done")
    assert "none lost" in result.stderr
    assert time.monotonic() - began < 60
