"""The versions that a bug report needs, each on a line of its own."""

import platform
from importlib import metadata

import pytest

from pyprof.profiler import libbpf, version
from pyprof.profiler.errors import ProfilerError


def test_every_part_has_a_line() -> None:
    lines = version.version_text().splitlines()
    assert [line.split()[0] for line in lines] == ["pyprof", "Python", "libbpf", "Linux", "BPF"]
    assert lines[1] == f"Python {platform.python_version()}"
    assert lines[3] == f"Linux {platform.release()} {platform.machine()}"


def test_version_is_the_packages() -> None:
    assert version.pyprof_version() == metadata.version("pyprof")


def test_version_without_installation_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert version.pyprof_version() == "unknown"


def test_missing_library_is_a_line_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def library() -> None:
        raise ProfilerError("libbpf.so.1 is not installed")

    monkeypatch.setattr(libbpf, "Library", library)
    assert "libbpf not usable: libbpf.so.1 is not installed" in version.version_text().splitlines()


def test_missing_manifest_leaves_the_compiler_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(version, "MANIFEST", version.Path(f"{tmp_path}/absent"))
    assert version.version_text().splitlines()[-1] == "BPF objects built by unknown"
