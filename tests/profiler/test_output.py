"""Results are whole files in the right hands, or no files at all."""

import errno
import io
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyprof.profiler import output
from pyprof.profiler.errors import ExitCode, ProfilerError
from pyprof.profiler.interrupts import Aborted

SOMEBODY, THEIR_GROUP = 4242, 4243


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(path: Path | str, data: bytes = b"new") -> str:
    """Return the one line that says why `path` cannot be written."""
    with pytest.raises(ProfilerError) as error:
        output.write(str(path), data)
    assert error.value.exit_code == ExitCode.OUTPUT
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", str(SOMEBODY))
    monkeypatch.setenv("SUDO_GID", str(THEIR_GROUP))


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Return a function that lets the next fsync of this process raise."""

    def fail(error: BaseException) -> None:
        def fsync(descriptor: int) -> None:
            raise error

        monkeypatch.setattr(os, "fsync", fsync)

    return fail


def test_new_file_holds_the_data_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    output.write(str(tmp_path / "x.svg"), b"data")
    assert (tmp_path / "x.svg").read_bytes() == b"data"
    assert names(tmp_path) == ["x.svg"]


def test_empty_data_is_an_empty_file(tmp_path: Path) -> None:
    output.write(str(tmp_path / "x.svg"), b"")
    assert (tmp_path / "x.svg").read_bytes() == b""


def test_new_file_obeys_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        output.write(str(tmp_path / "x.svg"), b"data")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.svg").stat().st_mode) == 0o640


def test_existing_file_is_replaced_and_who_has_it_open_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x.svg"
    path.write_bytes(b"old")
    with open(path, "rb") as old:
        output.write(str(path), b"new")
        assert old.read() == b"old"
    assert path.read_bytes() == b"new"


def test_symbolic_link_is_replaced_and_never_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / "x.svg").symlink_to(precious)
    output.write(str(tmp_path / "x.svg"), b"new")
    assert precious.read_bytes() == b"precious"
    assert not (tmp_path / "x.svg").is_symlink()
    assert (tmp_path / "x.svg").read_bytes() == b"new"


def test_dangling_link_creates_nothing_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "x.svg").symlink_to(tmp_path / "absent")
    output.write(str(tmp_path / "x.svg"), b"new")
    assert names(tmp_path) == ["x.svg"]
    assert not (tmp_path / "x.svg").is_symlink()


def test_link_to_a_device_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "x.svg").symlink_to("/dev/full")
    output.write(str(tmp_path / "x.svg"), b"new")
    assert (tmp_path / "x.svg").read_bytes() == b"new"


def test_other_name_of_a_hard_linked_file_keeps_its_contents(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    os.link(precious, tmp_path / "x.svg")
    output.write(str(tmp_path / "x.svg"), b"new")
    assert precious.read_bytes() == b"precious"
    assert (tmp_path / "x.svg").read_bytes() == b"new"


def test_link_in_the_way_of_the_unfinished_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output.os, "urandom", bytes)
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / f".pyprof-{bytes(8).hex()}.tmp").symlink_to(precious)
    refused(tmp_path / "x.svg")
    assert precious.read_bytes() == b"precious"
    assert not (tmp_path / "x.svg").exists()


def test_fifo_is_refused_without_waiting_for_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.svg")
    assert "not a regular file" in refused(tmp_path / "x.svg")
    assert stat.S_ISFIFO((tmp_path / "x.svg").lstat().st_mode)


def test_folder_at_the_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.svg").mkdir()
    assert "not a regular file" in refused(tmp_path / "x.svg")


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("device", ["/dev/full", "/dev/zero"])
def test_device_is_refused(device: str) -> None:
    assert "not a regular file; use -o -" in refused(device)
    assert stat.S_ISCHR(os.stat(device).st_mode)


def test_null_device_discards_and_stays_a_device() -> None:
    output.check_writable("/dev/null")
    output.write("/dev/null", b"data")
    assert stat.S_ISCHR(os.lstat("/dev/null").st_mode)


def test_absent_folder_is_refused(tmp_path: Path) -> None:
    assert "No such file or directory" in refused(tmp_path / "absent" / "x.svg")


def test_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    refused(tmp_path / "file" / "x.svg")


def test_folder_of_everybody_is_refused_without_the_sticky_bit(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert "everybody may write" in refused(tmp_path / "x.svg")
    assert names(tmp_path) == []
    tmp_path.chmod(0o1777)
    output.write(str(tmp_path / "x.svg"), b"data")
    assert names(tmp_path) == ["x.svg"]


def test_check_of_a_place_changes_nothing(tmp_path: Path) -> None:
    output.check_writable(str(tmp_path / "x.svg"))
    assert names(tmp_path) == []


@pytest.mark.usefixtures("as_root", "sudo")
def test_file_in_the_invoking_users_folder_belongs_to_them(tmp_path: Path) -> None:
    os.chown(tmp_path, SOMEBODY, THEIR_GROUP)
    output.write(str(tmp_path / "x.svg"), b"data")
    found = (tmp_path / "x.svg").stat()
    assert (found.st_uid, found.st_gid) == (SOMEBODY, THEIR_GROUP)


@pytest.mark.usefixtures("as_root", "sudo")
def test_file_in_a_folder_of_somebody_else_stays_roots(tmp_path: Path) -> None:
    output.write(str(tmp_path / "x.svg"), b"data")
    assert (tmp_path / "x.svg").stat().st_uid == 0
    os.chown(tmp_path, SOMEBODY + 1, THEIR_GROUP)
    output.write(str(tmp_path / "y.svg"), b"data")
    assert (tmp_path / "y.svg").stat().st_uid == 0


@pytest.mark.usefixtures("as_root", "sudo")
def test_invoking_user_gains_nothing_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, SOMEBODY, THEIR_GROUP)
    (theirs / "x.svg").symlink_to(precious)
    output.write(str(theirs / "x.svg"), b"data")
    assert precious.stat().st_uid == 0
    assert precious.read_bytes() == b"precious"


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("number", ["", "-1", "root", "0x10"])
def test_nonsense_in_the_environment_of_sudo_is_ignored(
    number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", number)
    monkeypatch.setenv("SUDO_GID", number)
    output.write(str(tmp_path / "x.svg"), b"data")
    assert (tmp_path / "x.svg").stat().st_uid == 0


def test_full_disk_is_told_with_the_room_that_is_needed(small_disk: Path) -> None:
    path = small_disk / "x.svg"
    assert refused(path, bytes(100_000)) == f"disk full writing {path}: 98 kB needed; try -o ELSEWHERE"
    assert names(small_disk) == []


def test_full_disk_keeps_the_old_file(small_disk: Path) -> None:
    (small_disk / "x.svg").write_bytes(b"old")
    refused(small_disk / "x.svg", bytes(100_000))
    assert names(small_disk) == ["x.svg"]
    assert (small_disk / "x.svg").read_bytes() == b"old"


@pytest.mark.usefixtures("nothing_is_left")
def test_failure_leaves_nothing_beside_the_target(
    tmp_path: Path, failing: Callable[[BaseException], None]
) -> None:
    (tmp_path / "x.svg").write_bytes(b"old")
    failing(OSError(errno.EIO, "Input/output error"))
    assert "Input/output error" in refused(tmp_path / "x.svg")
    assert names(tmp_path) == ["x.svg"]
    assert (tmp_path / "x.svg").read_bytes() == b"old"


def test_abort_leaves_nothing_beside_the_target(
    tmp_path: Path, failing: Callable[[BaseException], None]
) -> None:
    failing(Aborted())
    with pytest.raises(Aborted):
        output.write(str(tmp_path / "x.svg"), b"new")
    assert names(tmp_path) == []


def test_abort_right_after_the_rename_keeps_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def interrupted(*places: str, src_dir_fd: int, dst_dir_fd: int) -> None:
        replace(*places, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        raise Aborted

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(Aborted):
        output.write(str(tmp_path / "x.svg"), b"new")
    assert names(tmp_path) == ["x.svg"]


def test_links_of_the_system_in_dev_stay_links(tmp_path: Path, as_root: None) -> None:
    script = (
        "mount -t tmpfs none /dev && ln -s /proc/self/fd/2 /dev/stderr && "
        "\"$0\" -c \"from pyprof.profiler import output; output.write('/dev/stderr', b'data')\"; "
        "readlink /dev/stderr"
    )
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable],
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.stdout == "/proc/self/fd/2\n", result.stderr


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_standard_output_takes_the_bytes(name: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output.check_writable(name)
    output.write(name, b"\xff\x00\n")
    assert capfdbinary.readouterr().out == b"\xff\x00\n"


def test_reader_of_standard_output_that_has_gone_is_a_broken_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "wb", buffering=0) as pipe:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe, write_through=True))
        with pytest.raises(BrokenPipeError):
            output.write("-", b"data")
        sys.stdout.detach()


def test_full_disk_behind_standard_output_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(full, write_through=True))
        assert "disk full" in refused("-")
        sys.stdout.detach()


def test_default_name_tells_mode_host_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output.platform, "node", lambda: "web-1.example")
    assert output.default_name("cpu", now_s=0.0) == "pyprof-cpu-web-1.example-19700101T000000Z.svg"
    assert output.default_name("cpu", suffix=".pb.gz", now_s=86_399.0).endswith("-19700101T235959Z.pb.gz")


@pytest.mark.parametrize(("host", "shown"), [("a/../b\n\x1b", "a_.._b__"), ("", "host")])
def test_default_name_stays_in_its_folder_whatever_the_host_is_called(
    host: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output.platform, "node", lambda: host)
    assert output.default_name("cpu", now_s=0.0) == f"pyprof-cpu-{shown}-19700101T000000Z.svg"


def test_taken_name_gets_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert output.unused_path("x.svg") == Path("x.svg")
    Path("x.svg").touch()
    assert output.unused_path("x.svg") == Path("x-2.svg")
    Path("x-2.svg").touch()
    assert output.unused_path("x.svg") == Path("x-3.svg")


def test_number_comes_before_the_whole_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.pb.gz").touch()
    assert output.unused_path("x.pb.gz") == Path("x-2.pb.gz")


def test_rescued_data_is_in_a_new_private_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output.tempfile, "tempdir", str(tmp_path))
    path = Path(output.rescue(b"data", ".pb.gz"))
    assert path.read_bytes() == b"data"
    assert path.name.startswith("pyprof-rescued-")
    assert path.name.endswith(".pb.gz")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Path(output.rescue(b"other", ".pb.gz")) != path


def test_rescue_without_a_place_gives_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output.tempfile, "tempdir", str(tmp_path / "absent"))
    assert output.rescue(b"data", ".pb.gz") == ""


@pytest.mark.usefixtures("nothing_is_left")
def test_rescue_onto_a_full_disk_leaves_nothing(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output.tempfile, "tempdir", str(small_disk))
    assert output.rescue(bytes(100_000), ".pb.gz") == ""
    assert names(small_disk) == []


@pytest.mark.usefixtures("as_root", "sudo")
def test_rescued_file_belongs_to_the_invoking_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output.tempfile, "tempdir", str(tmp_path))
    assert Path(output.rescue(b"data", ".pb.gz")).stat().st_uid == SOMEBODY
