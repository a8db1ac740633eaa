"""Profiles from files: what `pyprof render` and `pyprof top` read."""

import os
import sys
from pathlib import Path

from pyprof.profiler.errors import ExitCode, ProfilerError
from pyprof.profiler.profile import Profile

GZIP_MAGIC = b"\x1f\x8b"
MAX_INPUT_BYTES = 1 << 30


def read_profile(path: str) -> Profile:
    """Return the profile in a file, or on standard input for "-".

    The kind is told by the contents: gzip is pprof, text is folded stacks.

    Raises: ProfilerError, exit code 66, when it cannot be read.
    """
    from pyprof.render.errors import RenderError

    data = _bytes(path)
    try:
        if data.startswith(GZIP_MAGIC):
            from pyprof.render.pprof_reader import decode_pprof

            return decode_pprof(data)
        from pyprof.render.folded import read_folded

        return read_folded(data)
    except RenderError as error:
        raise ProfilerError(f"cannot read {_shown(path)}: {error}", ExitCode.INPUT) from error


def _bytes(path: str) -> bytes:
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
        else:
            with Path(path).open("rb") as source:
                if os.fstat(source.fileno()).st_size > MAX_INPUT_BYTES:
                    raise _too_large(path)
                data = source.read(MAX_INPUT_BYTES + 1)
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        raise ProfilerError(
            f"cannot read {_shown(path)}: {reason}; give a saved profile", ExitCode.INPUT
        ) from error
    if len(data) > MAX_INPUT_BYTES:
        raise _too_large(path)  # a pipe or a device, which has no size
    return data


def _too_large(path: str) -> ProfilerError:
    message = f"cannot read {_shown(path)}: it is larger than 1 GiB; merge or shorten the capture"
    return ProfilerError(message, ExitCode.INPUT)


def _shown(path: str) -> str:
    from pyprof.symbolize.text import printable

    return "standard input" if path == "-" else printable(path)
