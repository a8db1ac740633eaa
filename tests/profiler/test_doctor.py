"""The doctor: what is usable, and what a machine that lacks something is told."""

import json
import subprocess
from collections.abc import Callable

import pytest

from pyprof.profiler import doctor
from pyprof.profiler.doctor import DEGRADED, MISSING, OK, Check, checks, is_usable
from pyprof.profiler.errors import ExitCode

Run = Callable[..., subprocess.CompletedProcess[str]]

NAMES = [
    "privileges",
    "BTF",
    "libbpf",
    "perf events",
    "process events",
    "sampling",
    "hardware counters",
    "kernel symbols",
    "stack depth",
    "lockdown",
    "cgroups",
]


@pytest.mark.parametrize(
    ("states", "usable"),
    [((OK, OK), True), ((OK, DEGRADED), True), ((DEGRADED,), True), ((OK, MISSING), False), ((), True)],
)
def test_captures_work_unless_something_is_missing(states: tuple[str, ...], usable: bool) -> None:
    assert is_usable([Check("name", state, "finding") for state in states]) == usable


@pytest.mark.bpf
def test_every_check_is_tried_in_order_and_this_machine_is_usable() -> None:
    results = checks()
    assert [result.name for result in results] == NAMES
    assert is_usable(results), results
    assert all(result.finding for result in results)
    assert all("\n" not in result.finding + result.remedy for result in results)


@pytest.mark.bpf
def test_sampling_is_tried_for_real() -> None:
    (sampling,) = [result for result in checks() if result.name == "sampling"]
    ticks = int(sampling.finding.split()[0])
    assert 50 < ticks < 250, sampling  # about 199


@pytest.mark.bpf
def test_json_has_every_check(pyprof: Run) -> None:
    result = pyprof("doctor", "--json")
    assert result.returncode == ExitCode.DONE
    assert [check["name"] for check in json.loads(result.stdout)] == NAMES
    assert {"name", "state", "finding", "remedy"} == set(json.loads(result.stdout)[0])


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("arguments", [("doctor",), ("cpu", "-f", "0.2")])
def test_machine_without_sysfs_gets_words_and_no_traceback(
    arguments: tuple[str, ...], pyprof_path: str
) -> None:
    hidden = 'mount -t tmpfs none /sys && exec "$0" "$@"'
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hidden, pyprof_path, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == ExitCode.CANNOT_PROFILE, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("state", "mark"), [(OK, "ok "), (DEGRADED, "degraded"), (MISSING, "missing")])
def test_command_has_a_mark_for_every_state(
    state: str, mark: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pyprof.profiler.cli import exit_code

    monkeypatch.setattr(doctor, "checks", lambda: [Check("thing", state, "finding", "remedy")])
    expected = ExitCode.CANNOT_PROFILE if state == MISSING else ExitCode.DONE
    assert exit_code(["doctor"]) == expected
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(mark)
    assert first.endswith("  thing: finding")
    assert second.strip() == "remedy"
