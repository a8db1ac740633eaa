"""The cache of unwind tables: one file for each, named by what the table was built from.

    /var/cache/pyprof/8f2c...-19ab....unwind        build id - digest of the call frame information

The digest keeps a file that borrows another's build id from being taken for it. What is read back is not
believed either: the table worker checks it whole.
"""

import contextlib
import os
import re
import tempfile
from pathlib import Path

from pyprof.profiler.binaries import OPEN_FLAGS

FOLDER_MODE = 0o700
MAX_BYTES = 512 << 20
ENDING = ".unwind"

_NAME = re.compile(r"[0-9a-f-]{8,200}")


class TableCache:
    """Tables on disk. Nothing here raises: without a cache, tables are built anew."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` is made when the first table is kept; None: nothing is kept."""
        self._folder = folder

    def open(self, name: str) -> int:
        """Return a descriptor of the table of this name, -1 when there is none that is ours."""
        if self._folder is None or not _NAME.fullmatch(name):
            return -1
        try:
            descriptor = os.open(self._folder / f"{name}{ENDING}", OPEN_FLAGS | os.O_NOFOLLOW)
        except OSError:
            return -1
        if os.fstat(descriptor).st_uid == os.geteuid():
            return descriptor
        os.close(descriptor)
        return -1

    def keep(self, name: str, serialised: bytes) -> None:
        """Write a table beside its place, then rename it there."""
        folder = self._folder
        if folder is None or not _NAME.fullmatch(name):
            return
        with contextlib.suppress(OSError):
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            status = folder.stat()
            if status.st_uid == os.geteuid() and not status.st_mode & 0o022:
                _make_room(folder, len(serialised))
                _write(folder / f"{name}{ENDING}", serialised)


def _write(path: Path, serialised: bytes) -> None:
    descriptor, beside = tempfile.mkstemp(
        dir=path.parent, prefix="new-", suffix=ENDING
    )  # 0600; pruned like all
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(serialised)
        Path(beside).rename(path)
    except OSError:
        Path(beside).unlink()
        raise


def _make_room(folder: Path, size_bytes: int) -> None:
    """Remove the tables that were written longest ago until the new one fits."""
    status = {path: path.stat() for path in folder.glob(f"*{ENDING}")}
    total = sum(one.st_size for one in status.values()) + size_bytes
    for path in sorted(status, key=lambda path: status[path].st_mtime_ns):
        if total <= MAX_BYTES:
            return
        path.unlink()
        total -= status[path].st_size


def cache_folder() -> Path | None:
    """Return where tables are kept: $PYPROF_CACHE, else below the user's cache folder.

    An empty PYPROF_CACHE means nowhere. root has /var/cache/pyprof, whoever called sudo.
    """
    chosen = os.environ.get("PYPROF_CACHE")
    if chosen is not None:
        return Path(chosen) if chosen else None
    if os.geteuid() == 0:
        return Path("/var/cache/pyprof")
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # a user without a home
        return None
    return base / "pyprof" if base.is_absolute() else None
