"""Files behind sampled code are held open from the moment they are seen, and never the wrong one."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pyprof.profiler import binaries, proc
from pyprof.profiler.binaries import Binaries
from pyprof.profiler.proc import FileMapping

pytestmark = pytest.mark.usefixtures("nothing_is_left")

Make = Callable[..., FileMapping]

# Holds more files than the descriptor limit has room for, and tells how many it opened and passed over.
CROWDED = """
import resource, sys
from pyprof.profiler.binaries import SPARE_DESCRIPTORS, Binaries
from pyprof.profiler.proc import FileMapping
from pyprof.profiler.profile import Mapping
resource.setrlimit(resource.RLIMIT_NOFILE, (SPARE_DESCRIPTORS + 2, SPARE_DESCRIPTORS + 2))
files = [FileMapping(Mapping(0, 1, 0, path), 0, 0) for path in sys.argv[1:]]
held = Binaries()
for file in files:
    held.hold(1, file)
print(sum(held.descriptor(file) >= 0 for file in files), held.unopened)
"""


@pytest.fixture
def fake_proc(tmp_path: Path) -> Path:
    """Return the folder of process 7 in a procfs that has nothing else."""
    (tmp_path / "proc" / "7" / "map_files").mkdir(parents=True)
    return tmp_path / "proc" / "7"


@pytest.fixture
def held(fake_proc: Path) -> Iterator[Binaries]:
    with closing(Binaries(proc=str(fake_proc.parent))) as made:
        yield made


@pytest.fixture
def running(tmp_path: Path, as_root: None) -> Iterator["subprocess.Popen[bytes]"]:
    """Return a process that runs the file `copy`, a copy of cat."""
    copy = tmp_path / "copy"
    copy.write_bytes(Path("/bin/cat").read_bytes())
    copy.chmod(0o755)
    with subprocess.Popen([copy], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"!")
        assert process.stdout.read(1) == b"!"  # so its code is mapped
        yield process


def code_of(pid: int, path: Path) -> FileMapping:
    """Return the executable mapping of a file in a process."""
    (file,) = [one for one in proc.executable_mappings(pid) if one.mapping.path == str(path)]
    return file


def contents(held: Binaries, file: FileMapping) -> bytes | None:
    """Return what the held descriptor reads, None when there is none."""
    descriptor = held.descriptor(file)
    return os.pread(descriptor, 100, 0) if descriptor >= 0 else None


def test_file_is_held_open_by_a_descriptor(tmp_path: Path, held: Binaries, mapped: Make) -> None:
    (tmp_path / "a").write_bytes(b"contents")
    file = mapped(str(tmp_path / "a"))
    assert held.descriptor(file) == -1
    held.hold(7, file)
    assert contents(held, file) == b"contents"
    assert not os.get_inheritable(held.descriptor(file))


def test_file_is_read_after_it_was_deleted(tmp_path: Path, held: Binaries, mapped: Make) -> None:
    (tmp_path / "a").write_bytes(b"contents")
    file = mapped(str(tmp_path / "a"))
    held.hold(7, file)
    (tmp_path / "a").unlink()
    held.hold(7, file)
    assert contents(held, file) == b"contents"


def test_file_that_appears_later_is_opened_at_its_next_sight(
    tmp_path: Path, held: Binaries, mapped: Make
) -> None:
    file = mapped(str(tmp_path / "a"))
    held.hold(7, file)
    assert held.descriptor(file) == -1
    (tmp_path / "a").write_bytes(b"contents")
    held.hold(7, file)
    assert contents(held, file) == b"contents"


def test_equal_build_id_is_one_file_whatever_process_has_it(
    tmp_path: Path, held: Binaries, mapped: Make
) -> None:
    (tmp_path / "a").write_bytes(b"contents")
    first = mapped(str(tmp_path / "a"), build_id="abcd")
    second = mapped(str(tmp_path / "a"), 0x7000, 0x8000, build_id="abcd")
    held.hold(7, first)
    before = len(os.listdir("/proc/self/fd"))
    held.hold(8, second)
    assert held.descriptor(second) == held.descriptor(first)
    assert len(os.listdir("/proc/self/fd")) == before


def test_another_build_id_at_the_same_path_is_another_file(
    tmp_path: Path, held: Binaries, mapped: Make
) -> None:
    old, new = (mapped(str(tmp_path / "a"), build_id=build_id) for build_id in ("abcd", "ef01"))
    for file, data in ((old, b"old"), (new, b"new")):
        (tmp_path / "fresh").write_bytes(data)
        (tmp_path / "fresh").rename(tmp_path / "a")
        held.hold(7, file)
    assert (contents(held, old), contents(held, new)) == (b"old", b"new")


def test_exact_mapped_file_comes_before_its_path(
    tmp_path: Path, fake_proc: Path, held: Binaries, mapped: Make
) -> None:
    (tmp_path / "a").write_bytes(b"replaced")
    (tmp_path / "mapped").write_bytes(b"mapped")
    (fake_proc / "map_files" / "1000-2000").symlink_to(tmp_path / "mapped")
    file = mapped(str(tmp_path / "a"))
    held.hold(7, file)
    assert contents(held, file) == b"mapped"


def test_path_is_looked_up_in_the_root_of_the_process_first(
    tmp_path: Path, fake_proc: Path, held: Binaries, mapped: Make
) -> None:
    (tmp_path / "a").write_bytes(b"outside")
    inside = tmp_path / "container" / (tmp_path / "a").relative_to("/")
    inside.parent.mkdir(parents=True)
    inside.write_bytes(b"inside")
    (fake_proc / "root").symlink_to(tmp_path / "container")
    file = mapped(str(tmp_path / "a"))
    held.hold(7, file)
    assert contents(held, file) == b"inside"


def test_file_of_another_inode_is_refused(tmp_path: Path, held: Binaries, mapped: Make) -> None:
    (tmp_path / "a").write_bytes(b"contents")
    inode = (tmp_path / "a").stat().st_ino
    right, wrong = mapped(str(tmp_path / "a"), inode=inode), mapped(str(tmp_path / "a"), inode=inode + 1)
    held.hold(7, right)
    held.hold(7, wrong)
    assert contents(held, right) == b"contents"
    assert contents(held, wrong) is None


def test_wrong_file_in_the_processs_root_does_not_hide_the_right_one_outside(
    tmp_path: Path, fake_proc: Path, held: Binaries, mapped: Make
) -> None:
    (tmp_path / "a").write_bytes(b"outside")
    inside = tmp_path / "container" / (tmp_path / "a").relative_to("/")
    inside.parent.mkdir(parents=True)
    inside.write_bytes(b"inside")
    (fake_proc / "root").symlink_to(tmp_path / "container")
    file = mapped(str(tmp_path / "a"), inode=(tmp_path / "a").stat().st_ino)
    held.hold(7, file)
    assert contents(held, file) == b"outside"


def test_fifo_is_passed_over_without_waiting_for_a_writer(
    tmp_path: Path, held: Binaries, mapped: Make
) -> None:
    os.mkfifo(tmp_path / "a")
    held.hold(7, mapped(str(tmp_path / "a")))
    assert held.descriptor(mapped(str(tmp_path / "a"))) == -1


@pytest.mark.parametrize("path", ["/", "/dev/zero", "/nonexistent", "/dev/null/a", "/a\udcff"])
def test_what_is_no_regular_file_has_no_descriptor(path: str, held: Binaries, mapped: Make) -> None:
    assert binaries.open_regular(path) == -1
    held.hold(7, mapped(path))
    assert held.descriptor(mapped(path)) == -1


@pytest.mark.parametrize("path", ["[vdso]", "[vsyscall]", "//anon", "relative", ""])
def test_mapping_without_a_file_is_not_looked_for(
    path: str, fake_proc: Path, held: Binaries, mapped: Make, tmp_path: Path
) -> None:
    (tmp_path / "mapped").write_bytes(b"mapped")
    (fake_proc / "map_files" / "1000-2000").symlink_to(tmp_path / "mapped")
    held.hold(7, mapped(path))
    assert held.descriptor(mapped(path)) == -1


def test_deleted_binary_of_a_live_process_is_opened_through_its_mapping(
    running: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    (tmp_path / "copy").unlink()
    file = code_of(running.pid, tmp_path / "copy")
    with closing(Binaries()) as held:
        held.hold(running.pid, file)
        descriptor = held.descriptor(file)
        assert descriptor >= 0
        assert os.fstat(descriptor).st_nlink == 0
        assert os.pread(descriptor, 1 << 20, 0) == Path("/bin/cat").read_bytes()


def test_replaced_binary_of_a_live_process_is_still_the_mapped_one(
    running: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "other").replace(tmp_path / "copy")
    file = code_of(running.pid, tmp_path / "copy")
    with closing(Binaries()) as held:
        held.hold(running.pid, file)
        assert os.pread(held.descriptor(file), 4, 0) == b"\x7fELF"


def test_files_beyond_the_descriptor_limit_are_counted(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(5)]
    for path in paths:
        path.touch()
    told = subprocess.run(
        [sys.executable, "-c", CROWDED, *map(str, paths)], check=True, capture_output=True, text=True
    )
    assert told.stdout.split() == ["2", "3"]


def test_descriptor_limit_is_raised_as_far_as_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        assert binaries.raised_descriptor_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_closing_twice_lets_go_of_everything_once(tmp_path: Path, held: Binaries, mapped: Make) -> None:
    (tmp_path / "a").touch()
    held.hold(7, mapped(str(tmp_path / "a")))
    held.close()
    held.close()
    assert held.descriptor(mapped(str(tmp_path / "a"))) == -1
