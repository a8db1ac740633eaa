"""What the machine does meanwhile, or forbids: CPUs that come and go, hidden symbols, no privileges."""

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.bpf

# mypy: disable-error-code="no-untyped-def"

SWITCH = Path("/sys/devices/system/cpu/cpu1/online")
KPTR_RESTRICT = Path("/proc/sys/kernel/kptr_restrict")
NO_CAPABILITY = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


@pytest.fixture
def absent(request: pytest.FixtureRequest) -> Iterator[threading.Thread]:
    """Return a thread, not started yet, that takes CPU 1 away for some seconds."""
    if not SWITCH.exists():
        pytest.skip("CPU 1 cannot be taken offline here")

    def take_away() -> None:
        time.sleep(1)
        SWITCH.write_text("0")
        time.sleep(request.param)
        SWITCH.write_text("1")

    thread = threading.Thread(target=take_away)
    yield thread
    thread.join()
    SWITCH.write_text("1")


@pytest.mark.parametrize("absent", [0.1], indirect=True)
def test_cpu_that_was_away_for_a_moment_is_sampled_again(capture, background, sample, absent) -> None:
    background(sample("shares"), "30")
    background(sample("shares"), "30")
    absent.start()
    captured = capture("-F", "199", "6")
    assert "CPU 1 was offline for a moment during the capture" in captured.profile.provenance.notes
    assert captured.profile.total >= 0.7 * 2 * 6 * 199  # one CPU alone gives half


@pytest.mark.parametrize("absent", [2], indirect=True)
def test_cpu_that_goes_and_comes_is_followed(capture, background, sample, absent) -> None:
    background(sample("shares"), "30")
    background(sample("shares"), "30")
    absent.start()
    captured = capture("-F", "199", "6")
    quality = captured.profile.quality
    assert "CPU 1 went offline during the capture" in captured.profile.provenance.notes
    assert "CPU 1 came online during the capture" in captured.profile.provenance.notes
    assert captured.profile.total == quality.counted
    assert quality.taken - quality.idle >= 0.8 * quality.expected


def test_hidden_kernel_symbols_are_explained(capture) -> None:
    before = KPTR_RESTRICT.read_text()
    KPTR_RESTRICT.write_text("2")
    try:
        captured = capture("-F", "499", "--", "dd", "if=/dev/zero", "of=/dev/null", "bs=1M", "count=5000")
    finally:
        KPTR_RESTRICT.write_text(before)
    assert "kernel.kptr_restrict=2" in captured.result.stderr
    assert any("[kernel]" in names for names, _ in captured.names("dd"))


@pytest.mark.parametrize("arguments", [["cpu", "-f", "1"], ["cpu", "-f", "-p", "1", "1"]])
def test_without_privileges_the_message_names_cause_and_remedy(pyprof_path, arguments) -> None:
    result = subprocess.run(
        [*NO_CAPABILITY, pyprof_path, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 77
    assert result.stdout == ""
    assert result.stderr.startswith("pyprof: pyprof needs root (or CAP_BPF and CAP_PERFMON): ")
    assert result.stderr.count("\n") == 1


def test_doctor_without_privileges_says_the_same(pyprof_path) -> None:
    result = subprocess.run(
        [*NO_CAPABILITY, pyprof_path, "doctor"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 77
    assert "missing   sampling: pyprof needs root (or CAP_BPF and CAP_PERFMON)" in result.stdout


def test_two_capabilities_are_enough(pyprof_path, sample) -> None:
    allowed = ("setpriv", "--bounding-set=-all,+bpf,+perfmon", "--inh-caps=-all")
    command = [*allowed, pyprof_path, "cpu", "-f", "-F", "199", "--", sample("shares"), "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("shares;")


def test_doctor_as_root_finds_that_captures_work(pyprof) -> None:
    result = pyprof("doctor")
    assert result.returncode == 0, result.stdout
    assert "missing" not in result.stdout
    assert "ticks came" in result.stdout


def test_missing_hardware_counters_fall_back_and_say_so(capture, sample) -> None:
    captured = capture("-e", "cycles", "-F", "199", "--", sample("shares"), "1")
    provenance = captured.profile.provenance
    if provenance.event == "cycles":
        pytest.skip("this machine has hardware counters")
    assert provenance.event == "cpu-clock"
    assert any("no hardware counter for cycles here" in note for note in provenance.notes)
