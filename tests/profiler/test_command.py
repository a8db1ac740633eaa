"""A launched command waits for its release, and how it ends is told in words."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pyprof.profiler.command import Command
from pyprof.profiler.errors import ExitCode, ProfilerError
from pyprof.profiler.proc import start_ticks

pytestmark = pytest.mark.usefixtures("nothing_is_left")

# A parent that launches a command, tells its process id and never releases it.
ABANDONING = """
import os, sys
from pyprof.profiler.command import Command
command = Command(("touch", sys.argv[1]))
print(command.pid, flush=True)
sys.stdin.read()
os._exit(0)
"""


@pytest.fixture
def shell() -> Iterator[Callable[[str], Command]]:
    """Return a function that makes a held command of a line of shell."""
    made: list[Command] = []

    def make(line: str) -> Command:
        made.append(Command(("sh", "-c", line)))
        return made[-1]

    yield make
    for command in made:
        command.close()


def result_of(command: Command) -> str:
    command.release()
    return command.wait()


def ignored_signals(path: Path) -> int:
    fields = dict(line.split(":\t", 1) for line in path.read_text().splitlines() if ":\t" in line)
    return int(fields["SigIgn"], 16)


def test_command_begins_with_its_release(
    tmp_path: Path, shell: Callable[[str], Command], ended: Callable[[int], bool]
) -> None:
    command = shell(f"touch {tmp_path}/begun")
    assert os.waitid(os.P_PIDFD, command.fileno(), os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    assert not (tmp_path / "begun").exists()
    command.release()
    assert ended(command.fileno())
    assert (tmp_path / "begun").exists()
    assert command.wait() == "exited with status 0"


@pytest.mark.parametrize("status", [0, 3, 255])
def test_exit_status_is_told(status: int, shell: Callable[[str], Command]) -> None:
    assert result_of(shell(f"exit {status}")) == f"exited with status {status}"


@pytest.mark.parametrize("name", ["TERM", "KILL", "USR1"])
def test_signal_that_ended_it_is_told_by_name(name: str, shell: Callable[[str], Command]) -> None:
    assert result_of(shell(f"kill -{name} $$")) == f"was ended by SIG{name}"


def test_real_time_signal_is_told_by_number(shell: Callable[[str], Command]) -> None:
    assert "signal 40" in result_of(shell("kill -40 $$"))


def test_end_can_be_asked_for_twice(shell: Callable[[str], Command]) -> None:
    command = shell("exit 3")
    assert [result_of(command), command.wait()] == ["exited with status 3"] * 2


@pytest.mark.parametrize(
    ("number", "mode"), [(errno.ENOENT, None), (errno.EACCES, 0o644), (errno.ENOEXEC, 0o755)]
)
def test_program_that_cannot_run_is_one_line_with_the_reason(
    number: int, mode: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "program"
    if mode is not None:
        path.write_text("no magic number\n")
        path.chmod(mode)
    with closing(Command((str(path),))) as command, pytest.raises(ProfilerError) as error:
        command.release()
    assert error.value.exit_code == ExitCode.USAGE
    assert str(error.value) == (
        f"cannot run '{path}': {os.strerror(number)}; give a program that exists and is executable"
    )


def test_empty_program_name_is_refused() -> None:
    with closing(Command(("",))) as command:
        try:
            with pytest.raises(ProfilerError):
                command.release()
        finally:
            command.wait()


def test_command_that_was_killed_before_its_release_is_an_error(
    shell: Callable[[str], Command], ended: Callable[[int], bool]
) -> None:
    command = shell("true")
    os.kill(command.pid, signal.SIGKILL)
    assert ended(command.fileno())
    try:
        with pytest.raises(ProfilerError):
            command.release()
    finally:
        command.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_death_of_the_parent_before_the_release_ends_the_command(
    number: signal.Signals, tmp_path: Path, ended: Callable[[int], bool]
) -> None:
    arguments = [sys.executable, "-c", ABANDONING, str(tmp_path / "begun")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pidfd = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.send_signal(number)
            assert ended(pidfd)
        finally:
            os.close(pidfd)
    assert not (tmp_path / "begun").exists()


def test_closing_before_the_release_ends_the_command(tmp_path: Path, ended: Callable[[int], bool]) -> None:
    command = Command(("touch", str(tmp_path / "begun")))
    pidfd = os.pidfd_open(command.pid)
    try:
        command.close()
        assert ended(pidfd)
    finally:
        os.close(pidfd)
    assert not (tmp_path / "begun").exists()


def test_closing_leaves_no_zombie() -> None:
    command = Command(("true",))
    command.close()
    try:
        left = os.waitpid(command.pid, 0)[0]
    except ChildProcessError:
        left = 0
    assert left == 0


def test_release_after_a_failed_execution_has_reaped_the_child() -> None:
    with closing(Command(("/nonexistent",))) as command:
        with pytest.raises(ProfilerError):
            command.release()
        assert command.wait() == "exited with status 127"


def test_running_command_is_asked_to_end(shell: Callable[[str], Command]) -> None:
    command = shell("exec sleep 60")
    command.release()
    assert command.end()
    assert command.wait() == "was ended by SIGTERM"


def test_ended_command_is_not_signalled(
    shell: Callable[[str], Command], ended: Callable[[int], bool]
) -> None:
    command = shell("exit 3")
    command.release()
    assert ended(command.fileno())
    assert not command.end()
    assert command.wait() == "exited with status 3"


def test_target_awaits_the_execve_of_exactly_this_process(shell: Callable[[str], Command]) -> None:
    command = shell("true")
    assert command.target == (command.pid, start_ticks(command.pid), True)
    assert command.target.start_ticks > 0
    result_of(command)


def test_command_inherits_no_descriptor_of_pyprofs_own(
    tmp_path: Path, shell: Callable[[str], Command]
) -> None:
    line = f"ls /proc/self/fd > {tmp_path}/"
    subprocess.run(["sh", "-c", f"{line}direct"], check=True, close_fds=False)
    result_of(shell(f"{line}launched"))
    assert (tmp_path / "launched").read_text() == (tmp_path / "direct").read_text()


@pytest.mark.usefixtures("signals_kept")
def test_signals_that_pyprof_handles_have_their_default_effect_in_the_command(
    tmp_path: Path, shell: Callable[[str], Command]
) -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    command = shell(f"cat /proc/self/status > {tmp_path}/status; kill -TERM $$")
    assert result_of(command) == "was ended by SIGTERM"
    assert not ignored_signals(tmp_path / "status") & 1 << (signal.SIGPIPE - 1)


@pytest.mark.usefixtures("signals_kept")
def test_signal_that_was_ignored_stays_ignored_in_the_command(
    tmp_path: Path, shell: Callable[[str], Command]
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    result_of(shell(f"cat /proc/self/status > {tmp_path}/status"))
    assert ignored_signals(tmp_path / "status") & 1 << (signal.SIGHUP - 1)


def test_signal_that_only_python_ignores_is_reset_in_the_command(
    tmp_path: Path, shell: Callable[[str], Command]
) -> None:
    result_of(shell(f"cat /proc/self/status > {tmp_path}/status"))
    assert not ignored_signals(tmp_path / "status") & 1 << (signal.SIGXFSZ - 1)
