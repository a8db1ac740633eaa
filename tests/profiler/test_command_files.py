"""The files whose code a command will run, told before it runs."""

import os
from pathlib import Path

import pytest

from pyprof.profiler.command_files import command_files
from pyprof.profiler.proc import executable_mappings

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the one folder on the PATH. It has env and tool, which are no scripts."""
    for name in ("env", "tool"):
        script(tmp_path / "bin" / name, b"\x7fELF")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def script(path: Path, text: bytes) -> Path:
    """Write a file that may be run."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text)
    path.chmod(0o755)
    return path


def own_files(command: str, *arguments: str) -> list[str]:
    """Return the paths of the files that are the command's alone."""
    return [file.mapping.path for file in command_files((command, *arguments)) if not file.mapping.limit]


def test_program_is_its_file_wherever_it_is_found(
    bin_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = str(bin_folder / "tool")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tool)
    for name in ("tool", tool, "bin/tool", "./bin/../bin/tool", "./link"):
        assert own_files(name, "env") == [tool]


def test_file_is_told_by_device_and_inode(bin_folder: Path) -> None:
    (found,) = [file for file in command_files(("tool",)) if not file.mapping.limit]
    status = (bin_folder / "tool").stat()
    assert (found.device, found.inode) == (status.st_dev, status.st_ino)
    assert found.mapping == (0, 0, 0, str(bin_folder / "tool"), "")


@pytest.mark.parametrize(
    ("first_line", "programs"),
    [
        (b"#!{bin}/tool\n", ["tool"]),
        (b"#! {bin}/tool -x\n", ["tool"]),
        (b"#!{bin}/env tool\nrest", ["env", "tool"]),
        (b"#!{bin}/env -S tool -u\n", ["env"]),
        (b"#!{bin}/env absent\n", ["env"]),
        (b"#!{bin}/tool", ["tool"]),
        (b"#!\n", []),
        (b"#!{bin}/absent\n", []),
        (b"#!\0\xff\n", []),
        (b"", []),
        (b"\x7fELF\n#!{bin}/tool\n", []),
        (b"#!" + b" " * 300 + b"{bin}/tool\n", []),
    ],
)
def test_script_brings_its_interpreter(
    first_line: bytes, programs: list[str], bin_folder: Path, tmp_path: Path
) -> None:
    path = script(tmp_path / "report", first_line.replace(b"{bin}", bytes(bin_folder)))
    assert own_files(str(path)) == [str(path), *(str(bin_folder / name) for name in programs)]


def test_script_that_may_be_run_and_not_be_read_is_one_file(
    bin_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = script(tmp_path / "secret", b"#!" + bytes(bin_folder / "tool"))

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    assert own_files(str(path)) == [str(path)]


def test_pipe_that_could_be_run_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pipe").chmod(0o755)
    assert own_files(str(tmp_path / "pipe")) == [str(tmp_path / "pipe")]


@pytest.mark.parametrize("name", ["absent", "", "./absent", "/", "nul\0"])
def test_program_that_is_not_there_is_no_file(name: str, bin_folder: Path) -> None:
    assert own_files(name) == []


def test_common_libraries_are_those_of_this_process() -> None:
    found = command_files(("absent",))
    assert {"[vdso]"} < {file.mapping.path for file in found}
    assert any(file.mapping.path.endswith("/libc.so.6") for file in found)
    assert set(found) <= set(executable_mappings(os.getpid()))
    assert not any("python" in Path(file.mapping.path).name for file in found)
