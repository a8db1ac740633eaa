"""Live captures for the truth tests, and what they left behind."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pyprof.profiler.profile import Profile
from pyprof.render.pprof_reader import decode_pprof

Run = Callable[..., subprocess.CompletedProcess[str]]


class Captured(NamedTuple):
    """A finished capture: the profile that was saved and what pyprof said."""

    profile: Profile
    result: subprocess.CompletedProcess[str]

    def names(self, comm: str) -> list[tuple[list[str], int]]:
        """Return the stacks of a thread name, root first, with their values."""
        frames = self.profile.frames
        return [
            ([frames[index].name for index in sample.stack], sample.value)
            for sample in self.profile.samples
            if sample.comm == comm
        ]


@pytest.fixture
def capture(pyprof: Run, tmp_path: Path) -> Callable[..., Captured]:
    """Return a function that runs `pyprof cpu` with arguments and gives the saved profile."""

    def run(*arguments: str, **options: object) -> Captured:
        path = tmp_path / "capture.pb.gz"
        result = pyprof("cpu", "-o", str(path), *arguments, **options)
        assert path.exists(), result.stderr
        return Captured(decode_pprof(path.read_bytes()), result)

    return run


@pytest.fixture
def background() -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Return a function that starts a program, which is ended with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **options: object) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(arguments, **options)  # type: ignore[call-overload]
        running.append(process)
        return process  # type: ignore[no-any-return]

    yield start
    for process in running:
        process.kill()
        process.wait()
