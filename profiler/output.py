"""Where results go: a file written whole or not at all, or standard output.

A file is written beside its place and renamed, so a reader never sees half of it, and a symbolic link
at that place is replaced, never followed. Under sudo it belongs to the invoking user.
"""

import contextlib
import errno
import os
import platform
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from pyprof.profiler.errors import ExitCode, ProfilerError

STANDARD_OUTPUT = frozenset({"-", "/dev/stdout"})
DISCARD = "/dev/null"


class _User(NamedTuple):
    uid: int
    gid: int


def default_name(mode: str, *, suffix: str = ".svg", now_s: float | None = None) -> str:
    """Return a new file's name: pyprof-cpu-myhost-20260131T120000Z.svg."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    host = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in platform.node())
    return f"pyprof-{mode}-{host or 'host'}-{stamp}{suffix}"


def unused_path(name: str) -> Path:
    """Return `name` in the current folder, with a number before its suffix when it is taken."""
    path = Path(name)
    for number in range(2, 1000):
        if not path.exists():
            break
        ending = ".pb.gz" if name.endswith(".pb.gz") else Path(name).suffix
        path = Path(f"{name.removesuffix(ending)}-{number}{ending}")
    return path


def check_writable(path: str) -> None:
    """Raise ProfilerError, exit code 74, unless a file could be written at `path` now."""
    if path in STANDARD_OUTPUT or path == DISCARD:
        return
    target = Path(path)
    try:
        folder = os.stat(target.parent)
        existing = os.lstat(target) if os.path.lexists(target) else None
    except OSError as error:
        raise _failure(path, error) from error
    if not stat.S_ISDIR(folder.st_mode) or not os.access(target.parent, os.W_OK | os.X_OK):
        raise ProfilerError(f"cannot write {path}: its folder is not writable", ExitCode.OUTPUT)
    if existing and not (stat.S_ISREG(existing.st_mode) or stat.S_ISLNK(existing.st_mode)):
        raise ProfilerError(f"cannot write {path}: it is not a regular file; use -o -", ExitCode.OUTPUT)
    if _is_of_the_kernel(target.parent.resolve()):
        raise ProfilerError(f"cannot write {path}: it is no place for files; use -o -", ExitCode.OUTPUT)
    if folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX:
        raise ProfilerError(
            f"cannot write {path}: everybody may write to its folder; use one of your own", ExitCode.OUTPUT
        )


def _is_of_the_kernel(folder: Path) -> bool:
    """Return whether a folder holds the system's own nodes and links, such as /dev/stderr."""
    return folder.parts[1:2] in {("dev",), ("proc",), ("sys",)} and folder.parts[1:3] != ("dev", "shm")


def write(path: str, data: bytes) -> None:
    """Write `data` to a file, or to standard output for "-".

    Raises: ProfilerError, exit code 74; BrokenPipeError when the reader of standard output has gone.
    """
    if path in STANDARD_OUTPUT:
        _print(data)
        return
    if path == DISCARD:
        return
    check_writable(path)
    try:
        _write_file(Path(path), data)
    except OSError as error:
        raise _failure(path, error, size_bytes=len(data)) from error


def _print(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _failure("standard output", error, size_bytes=len(data)) from error


def rescue(data: bytes, suffix: str) -> str:
    """Write `data` to a new file in a temporary folder and return its path; "" when that fails too."""
    with contextlib.suppress(OSError):
        descriptor, path = tempfile.mkstemp(prefix="pyprof-rescued-", suffix=suffix)
        try:
            _write_all(descriptor, data)
            _give_to_invoking_user(descriptor)
        except OSError:
            Path(path).unlink(missing_ok=True)
            return ""
        finally:
            os.close(descriptor)
        return path
    return ""


def _write_file(target: Path, data: bytes) -> None:
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    beside = f".pyprof-{os.urandom(8).hex()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(beside, flags, 0o666, dir_fd=folder)
        try:
            _write_all(descriptor, data)
            if os.fstat(folder).st_uid == _invoking_user().uid:
                _give_to_invoking_user(descriptor)
            os.replace(beside, target.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # an abort may come just after the rename
                os.unlink(beside, dir_fd=folder)
            raise
        finally:
            os.close(descriptor)
    finally:
        os.close(folder)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def _give_to_invoking_user(descriptor: int) -> None:
    user = _invoking_user()
    if user.uid >= 0:
        os.fchown(descriptor, user.uid, user.gid)


def _invoking_user() -> _User:
    """Return who called sudo; (-1, -1) without sudo."""
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and user.isdigit() and group.isdigit():
        return _User(int(user), int(group))
    return _User(-1, -1)


def _failure(path: str, error: OSError, *, size_bytes: int = 0) -> ProfilerError:
    if error.errno == errno.ENOSPC:
        need = f"{size_bytes // 1024 + 1} kB needed"
        return ProfilerError(f"disk full writing {path}: {need}; try -o ELSEWHERE", ExitCode.OUTPUT)
    reason = error.strerror or str(error)
    return ProfilerError(f"cannot write {path}: {reason}; give another place with -o", ExitCode.OUTPUT)
