"""Fixtures that every test folder may use, and the rule for tests that need a live kernel."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Whoever started the tests may ignore these (nohup, a background job), and pyprof keeps that; here they
# are under test.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = os.environ.get("PYPROF_REQUIRE_BPF") == "1"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("bpf") and os.geteuid() != 0:
        reason = "needs root to load BPF programs"
        if REQUIRED:
            pytest.fail(f"{reason}, and PYPROF_REQUIRE_BPF=1 forbids to skip", pytrace=False)
        pytest.skip(reason)


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """Fail the test when it leaves a descriptor or a child process."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def sample() -> Callable[[str], str]:
    """Return a function from a sample program's name to its built file."""

    def built(name: str) -> str:
        path = ROOT / "build" / "samples" / name
        assert path.exists(), f"{path} is not built; run: make samples stacks"
        return str(path)

    return built


@pytest.fixture(scope="session")
def pyprof_path() -> str:
    """Return the installed command."""
    return str(Path(sys.executable).with_name("pyprof"))


@pytest.fixture
def pyprof(pyprof_path: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs pyprof with arguments and gives its output as text."""

    def run(
        *arguments: str, timeout: float = 120, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [pyprof_path, *arguments],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=env,
            cwd=cwd,
        )

    return run
