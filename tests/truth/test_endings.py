"""However a capture ends: the result is written whole, the exit code tells, nothing stays behind."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

pytestmark = pytest.mark.bpf

# mypy: disable-error-code="no-untyped-def"

PROGRAMS = {"sample_cpu", "follow_fork", "note_exec"}


def loaded_programs() -> set[int]:
    """Return the ids of pyprof's BPF programs in the kernel."""
    text = subprocess.run(["bpftool", "-j", "prog"], capture_output=True, check=True, text=True).stdout
    return {program["id"] for program in json.loads(text) if program.get("name") in PROGRAMS}


def wait_until(condition, timeout_s: float = 10) -> bool:
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


@pytest.fixture
def start(pyprof_path, tmp_path) -> Iterator:
    """Return a function that starts `pyprof cpu` in the background."""
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [pyprof_path, "cpu", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_a_timed_capture_and_the_result_is_written(number, start, tmp_path) -> None:
    before = loaded_programs()
    process = start("-o", "x.svg", "60")
    assert wait_until(lambda: loaded_programs() - before)
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number, errors
    assert "samples in" in errors
    ET.parse(tmp_path / "x.svg")  # noqa: S314 - our own file
    assert wait_until(lambda: loaded_programs() <= before)


def test_interrupt_is_the_normal_end_of_an_open_capture(start, tmp_path) -> None:
    before = loaded_programs()
    process = start("-o", "x.svg")
    assert wait_until(lambda: loaded_programs() - before)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert (tmp_path / "x.svg").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay_s", [0, 0.01, 0.02, 0.04, 0.07, 0.5, 1.0, 1.05, 1.1, 1.15])
def test_signal_at_any_moment_leaves_a_whole_file_or_none(number, delay_s, start, tmp_path) -> None:
    before = loaded_programs()
    process = start("-o", "x.svg", "1")
    maps = Path(f"/proc/{process.pid}/maps")
    assert wait_until(lambda: "_ctypes" in maps.read_text())  # Python itself has started: ours from here on
    time.sleep(delay_s)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode in {0, -number, 128 + number}, errors
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] in ([], ["x.svg"])
    if (tmp_path / "x.svg").exists():
        ET.parse(tmp_path / "x.svg")  # noqa: S314
    assert wait_until(lambda: loaded_programs() <= before)


def test_two_signals_skip_the_symbols(start, tmp_path, sample, background) -> None:
    burning = background(sample("shares"), "30")
    before = loaded_programs()
    process = start("-f", "-F", "199", "-p", str(burning.pid), "60")
    assert wait_until(lambda: loaded_programs() - before)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    time.sleep(0.055)  # nearer ones count as the same key
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert re.search(r"^shares;.* \d+$", output, re.MULTILINE)


def test_kill_leaves_no_program_in_the_kernel(start) -> None:
    before = loaded_programs()
    for _ in range(5):
        process = start("-f")
        assert wait_until(lambda: loaded_programs() - before)
        process.kill()
        process.wait()
    assert wait_until(lambda: loaded_programs() <= before)


def test_kill_during_load_leaves_no_program(start) -> None:
    before = loaded_programs()
    for delay_s in (0.05, 0.07, 0.09, 0.11, 0.13):
        process = start("-f")
        time.sleep(delay_s)
        process.kill()
        process.wait()
    assert wait_until(lambda: loaded_programs() <= before)


def test_capture_ends_with_its_process(start, sample, background) -> None:
    burning = background(sample("shares"), "2")
    process = start("-f", "-F", "199", "-p", str(burning.pid))
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "hot" in output


def test_reader_of_the_pipe_that_goes_ends_the_capture(pyprof_path) -> None:
    began = time.monotonic()
    result = subprocess.run(
        ["sh", "-c", f"{pyprof_path} cpu -f 60 | true"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert time.monotonic() - began < 20
    assert result.stderr == "" or "Traceback" not in result.stderr


def test_exit_status_of_the_command_is_reported(pyprof) -> None:
    result = pyprof("cpu", "-f", "--", "sh", "-c", "exit 3")
    assert result.returncode == 0
    assert "command sh exited with status 3" in result.stderr


def test_command_that_outlives_the_capture_is_asked_to_end(pyprof) -> None:
    began = time.monotonic()
    result = pyprof("cpu", "-f", "0.3", "--", "sleep", "60")
    assert time.monotonic() - began < 20
    assert "was still running" in result.stderr


def test_command_that_cannot_run_is_one_line(pyprof) -> None:
    result = pyprof("cpu", "-f", "--", "/nonexistent/program")
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "pyprof: cannot run '/nonexistent/program': No such file or directory; "
        "give a program that exists and is executable"
    ]


def test_terminal_gets_a_picture_the_hottest_functions_and_progress(pyprof_path, tmp_path, sample) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [pyprof_path, "cpu", "-F", "199", "2", "--", sample("shares"), "3"],
        stdout=follower,
        stderr=follower,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(follower)
    shown = b""
    while process.poll() is None or select.select([leader], [], [], 0.1)[0]:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                shown += os.read(leader, 65536)
            except OSError:
                break
    os.close(leader)
    process.wait()
    text = shown.decode()
    assert re.search(r"\d+s/2s [\d,]+ samples, lost 0; Ctrl-C to stop", text)
    assert re.search(r"self %.*\n.*spin", text)
    assert re.search(r"hottest stacks.*\n.*%  shares  spin < hot < main", text)
    (picture,) = Path(tmp_path).glob("pyprof-cpu-*.svg")
    assert picture.name in text.replace("\r\n", "")


def test_pipe_gets_folded_stacks(pyprof, sample) -> None:
    result = pyprof("cpu", "-F", "199", "--", sample("shares"), "1")
    assert all(re.fullmatch(r"[^;]+(;.+)* \d+", line) for line in result.stdout.splitlines())
    assert "main;hot;spin" in result.stdout


def test_quiet_says_nothing_but_errors(pyprof) -> None:
    assert pyprof("cpu", "-q", "-f", "0.2").stderr == ""
