"""The committed BPF objects are those of the committed sources."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def copied(root: Path, tmp_path: Path) -> Path:
    """Return a copy of bpf/ that a test may change."""
    return Path(shutil.copytree(root / "bpf", tmp_path / "bpf"))


def check(folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(folder / "build.py"), "--check"], capture_output=True, text=True, check=False
    )


def test_objects_are_built_from_the_sources(copied: Path) -> None:
    assert check(copied).returncode == 0


@pytest.mark.parametrize("name", ["cpu.bpf.c", "cpu.h", "kernel_types.h", "objects/x86_64/cpu.bpf.o"])
def test_changed_file_is_named(copied: Path, name: str) -> None:
    with (copied / name).open("ab") as file:
        file.write(b"\n")
    result = check(copied)
    assert result.returncode == 1
    assert result.stderr == f"{name} is not what bpf/manifest.json says; run: make bpf\n"


def test_missing_object_is_named(copied: Path) -> None:
    (copied / "objects" / "x86_64" / "cpu.bpf.o").unlink()
    assert check(copied).returncode == 1


def test_the_same_compiler_builds_the_same_objects(copied: Path) -> None:
    if not shutil.which("clang-14") or not shutil.which("llvm-strip-14"):
        pytest.skip("clang-14 is not installed; `make bpf` brings it")
    before = json.loads((copied / "manifest.json").read_text())
    subprocess.run([sys.executable, str(copied / "build.py")], check=True)
    assert json.loads((copied / "manifest.json").read_text()) == before


def test_programs_need_no_whole_kernel_header(root: Path) -> None:
    assert not list((root / "bpf").rglob("vmlinux.h"))
    assert (root / "bpf" / "kernel_types.h").stat().st_size < 4_000
