"""The wheel holds everything, and what it installs runs outside the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

# This environment's dependencies, but not its own pyprof, which is the checkout.
LAUNCH = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path.insert(0, {installed!r})
import pyprof.profiler
assert pyprof.profiler.__file__.startswith({installed!r}), pyprof.profiler.__file__
sys.argv = ["pyprof", *{arguments!r}]
from pyprof.profiler.launch import main
main()
"""
ASSETS = {".c", ".h", ".o", ".json", ".js", ".css", ".proto", ".pyi", ".typed", ".py"}


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built from a copy of the files that git tracks or would track."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (root / name).is_file() and not name.startswith("tests/"):
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((root / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), "source"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run the installed pyprof, with the dependencies of this environment but not its pyprof."""
    script = LAUNCH.format(installed=str(installed), arguments=list(arguments))
    return subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", script],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_wheel_holds_every_package_and_asset(wheel: Path, root: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("bpf", "profiler", "render", "symbolize"):
        for path in (root / folder).rglob("*"):
            if path.suffix in ASSETS and "__pycache__" not in path.parts:
                assert f"pyprof/{path.relative_to(root)}" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert any(name.endswith("/licenses/bpf/LICENSE") for name in names)


def test_wheel_holds_no_tests_and_no_samples(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} <= {"pyprof", f"{wheel.name.rsplit('-', 3)[0]}.dist-info"}


def test_installed_wheel_tells_its_version(installed: Path, tmp_path: Path) -> None:
    result = run(installed, "--version", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "BPF objects built by" in result.stdout


def test_installed_wheel_draws(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "x.folded").write_text("a;main;f 3\na;main;g 1\n")
    result = run(installed, "render", "x.folded", "-o", "x.svg", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert b"<svg" in (tmp_path / "x.svg").read_bytes()


@pytest.mark.bpf
def test_installed_wheel_captures(installed: Path, tmp_path: Path) -> None:
    result = run(installed, "cpu", "-F", "199", "-o", "x.svg", "0.5", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "x.svg").exists()
    assert os.listdir(tmp_path) == ["x.svg"]
