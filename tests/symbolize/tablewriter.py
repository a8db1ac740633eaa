"""Write what a table worker says, by hand."""

import json
from typing import NamedTuple

from pyprof.symbolize.table_job import HEADER

NAME = "8f2c-19ab"


def framed(value: object) -> bytes:
    """Return a header: bytes as they are, anything else as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return HEADER.pack(len(data)) + data


class Size(NamedTuple):
    """What a header may say of a table of one block, no rows and one rule."""

    size: object = 24
    arrays: object = (8, 0, 16)
    first_block: object = 1
    is_cached: object = False


def sized(**changes: object) -> bytes:
    """Return a whole answer, of a table of zeros."""
    return framed({"name": NAME}) + framed(Size(**changes)._asdict()) + bytes(24)
