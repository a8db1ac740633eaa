"""Tables on disk: ours alone, whole, and not too many."""

import os
import stat
from pathlib import Path

import pytest

from pyprof.profiler import table_cache
from pyprof.profiler.table_cache import TableCache, cache_folder
from pyprof.symbolize.table_worker import _TABLE_NAME

pytestmark = pytest.mark.usefixtures("nothing_is_left")

NAME = "8f2c-19ab"
OTHER = 4711  # a user that we are not


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return where a cache will be; it is not there yet."""
    return tmp_path / "home" / "pyprof"


@pytest.fixture
def cache(folder: Path) -> TableCache:
    return TableCache(folder)


def contents(cache: TableCache, name: str = NAME) -> bytes | None:
    """Return what a table of the cache reads, None when there is none."""
    descriptor = cache.open(name)
    if descriptor < 0:
        return None
    with open(descriptor, "rb") as file:
        return file.read()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_table_is_kept_and_found_by_its_name(cache: TableCache) -> None:
    assert contents(cache) is None
    cache.keep(NAME, b"table")
    assert contents(cache) == b"table"
    assert contents(cache, "8f2c-19ac") is None


def test_folder_and_files_are_for_nobody_else(cache: TableCache, folder: Path) -> None:
    before = os.umask(0)
    try:
        cache.keep(NAME, b"table")
    finally:
        os.umask(before)
    (file,) = folder.iterdir()
    assert file.name == f"{NAME}.unwind"
    assert (mode(folder), mode(file)) == (0o700, 0o600)


def test_descriptor_does_not_reach_other_programs(cache: TableCache) -> None:
    cache.keep(NAME, b"table")
    descriptor = cache.open(NAME)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_newer_table_takes_the_place_of_the_older_at_once(cache: TableCache, folder: Path) -> None:
    cache.keep(NAME, b"old")
    descriptor = cache.open(NAME)
    cache.keep(NAME, b"newer")
    with open(descriptor, "rb") as file:
        assert file.read() == b"old"  # a reader keeps the whole old one
    assert contents(cache) == b"newer"
    assert len(list(folder.iterdir())) == 1


def test_table_that_cannot_be_written_leaves_nothing(small_disk: Path) -> None:
    small_disk.chmod(0o700)
    cache = TableCache(small_disk)
    cache.keep(NAME, bytes(1 << 20))
    assert list(small_disk.iterdir()) == []
    cache.keep(NAME, b"table")
    assert contents(cache) == b"table"


@pytest.mark.parametrize("owner", ["folder", "file"])
def test_cache_of_another_user_is_not_touched(
    owner: str, cache: TableCache, folder: Path, as_root: None
) -> None:
    cache.keep(NAME, b"theirs")
    path = folder if owner == "folder" else folder / f"{NAME}.unwind"
    os.chown(path, OTHER, OTHER)
    if owner == "file":
        assert contents(cache) is None
    else:
        cache.keep(NAME, b"ours")
        assert (folder / f"{NAME}.unwind").read_bytes() == b"theirs"


def test_symbolic_link_is_no_table(cache: TableCache, folder: Path, tmp_path: Path) -> None:
    folder.mkdir(parents=True, mode=0o700)
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / f"{NAME}.unwind").symlink_to(tmp_path / "secret")
    assert contents(cache) is None
    cache.keep(NAME, b"table")
    assert contents(cache) == b"table"
    assert (tmp_path / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "short",
        "../../8f2c-19ab",
        "8f2c/19ab",
        "8f2c-19ab\n",
        "8F2C-19AB",
        "8f2c.19ab",
        "a" * 201,
        "8f2c\0-19ab",
    ],
)
def test_name_that_is_no_digest_is_refused(
    name: str, cache: TableCache, folder: Path, tmp_path: Path
) -> None:
    cache.keep(name, b"table")
    assert cache.open(name) == -1
    assert list(tmp_path.iterdir()) == []


def test_names_are_those_that_the_worker_gives() -> None:
    assert table_cache._NAME == _TABLE_NAME


@pytest.mark.parametrize("rights", [0o770, 0o702, 0o777])
def test_folder_that_others_may_write_to_is_not_used(rights: int, cache: TableCache, folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(rights)
    cache.keep(NAME, b"table")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "/proc/none", "below a file"])
def test_place_that_cannot_be_a_folder_is_no_error(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    places = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "pyprof"}
    cache = TableCache(places.get(place, Path(place)))
    cache.keep(NAME, b"table")
    assert cache.open(NAME) == -1


def test_cache_without_a_folder_keeps_nothing() -> None:
    cache = TableCache(None)
    cache.keep(NAME, b"table")
    assert cache.open(NAME) == -1


def test_tables_that_were_written_longest_ago_make_room(
    cache: TableCache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_cache, "MAX_BYTES", 100)
    for age, name in enumerate(("aaaaaaaa", "bbbbbbbb", "cccccccc")):
        cache.keep(name, bytes(30))
        os.utime(folder / f"{name}.unwind", (1000 - 10 * age, 1000 - 10 * age))
    (folder / "notes.txt").write_bytes(bytes(1000))
    cache.keep("dddddddd", bytes(30))
    left = {path.stem for path in folder.iterdir()}
    assert left == {"aaaaaaaa", "bbbbbbbb", "dddddddd", "notes"}
    cache.keep("eeeeeeee", bytes(100))
    assert {path.stem for path in folder.iterdir()} == {"eeeeeeee", "notes"}


@pytest.mark.parametrize(
    ("environment", "euid", "folder"),
    [
        ({"PYPROF_CACHE": "/here"}, 0, "/here"),
        ({"PYPROF_CACHE": "/here"}, 1000, "/here"),
        ({"PYPROF_CACHE": ""}, 0, None),
        ({"PYPROF_CACHE": ""}, 1000, None),
        ({}, 0, "/var/cache/pyprof"),
        ({"XDG_CACHE_HOME": "/mine"}, 0, "/var/cache/pyprof"),
        ({"XDG_CACHE_HOME": "/mine"}, 1000, "/mine/pyprof"),
        ({"XDG_CACHE_HOME": ""}, 1000, "/home/me/.cache/pyprof"),
        ({}, 1000, "/home/me/.cache/pyprof"),
        ({"XDG_CACHE_HOME": "relative"}, 1000, None),
    ],
)
def test_folder_is_chosen_by_the_environment(
    environment: dict[str, str], euid: int, folder: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYPROF_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    assert cache_folder() == (Path(folder) if folder else None)
