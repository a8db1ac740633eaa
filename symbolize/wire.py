"""What the symbol worker tells its parent, and how the parent reads it without trust.

    frame        length of the rest, 4 bytes, little-endian | JSON
    first frame  {"symbols": ["_Z4workv", "main"], "picks": [0, 1, 0, -1], "build_id": "8f...", "failure": "",
                  "more": true}
    then         {"readable": ["work", "main"]}          where the first said that there is more

`symbols` are distinct names, `picks` has one index into them for each offset that was asked for. The
readable names come on their own, so that a mangled name that kills the worker costs only its own reading.
"""

import json
import struct
from typing import NamedTuple

from pyprof.symbolize.text import printable

HEADER = struct.Struct("<I")

_FAILURE_LIMIT = 200  # characters
_BUILD_ID_LIMIT = 128  # characters
_NAME_FRAME_BYTES = 4 * 4096 + 16  # of one name in a frame, at most; control characters never come raw


class Report(NamedTuple):
    """The first frame."""

    symbols: tuple[str, ...]  # printable
    picks: tuple[int, ...]  # one for each offset; -1: no symbol
    build_id: str  # lower-case hexadecimal
    failure: str  # "" or why there are no symbols
    more: bool  # a frame with readable names follows


def frame_limit(offset_count: int) -> int:
    """Return the bytes that an honest frame about so many offsets does not exceed."""
    return 4096 + (offset_count + 1) * _NAME_FRAME_BYTES


def report_frame(report: Report) -> bytes:
    """Return the first frame."""
    return _frame(report._asdict())


def readable_frame(names: list[str]) -> bytes:
    """Return the second frame."""
    return _frame({"readable": names})


def parsed_report(payload: bytes, offset_count: int) -> Report:
    """Return what a first frame says. Raises: ValueError when it is anything but that."""
    value = _parsed(payload)
    symbols = _names(value.get("symbols"))
    picks = value.get("picks")
    if not isinstance(picks, list) or len(picks) not in (0, offset_count):
        raise ValueError("picks")
    if not all(type(pick) is int and -1 <= pick < len(symbols) for pick in picks):
        raise ValueError("pick")
    build_id, failure = value.get("build_id"), value.get("failure")
    if not isinstance(build_id, str) or not isinstance(failure, str) or len(build_id) > _BUILD_ID_LIMIT:
        raise ValueError("build_id or failure")
    if set(build_id) - set("0123456789abcdef"):
        raise ValueError("build_id")
    return Report(
        symbols, tuple(picks), build_id, printable(failure, _FAILURE_LIMIT), value.get("more") is True
    )


def parsed_readable(payload: bytes, count: int) -> tuple[str, ...]:
    """Return the names of a second frame. Raises: ValueError when it is anything but `count` names."""
    names = _names(_parsed(payload).get("readable"))
    if len(names) != count:
        raise ValueError("readable")
    return names


def _frame(value: dict[str, object]) -> bytes:
    payload = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return HEADER.pack(len(payload)) + payload


def _parsed(payload: bytes) -> dict[str, object]:
    try:
        value = json.loads(payload)
    except RecursionError as error:
        raise ValueError("too deep") from error
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("names")
    return tuple(printable(name) for name in value)
