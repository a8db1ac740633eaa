"""The inside of the table worker: an ELF file in, its unwind table out. Runs confined; imports numpy.

    parent                                      worker
    "t" + descriptor of an ELF file ----------> finds its call frame information
        <-- frame {"keeps_pointers": true}      where that is so
        <-- frame {"name": "8f...-19..."}       build id and digest: what a table of it is known by
    "c" + descriptor of a cached table -------> takes it, if it is whole and of that digest
    or "b" -----------------------------------> builds the table
        <-- frame {"size": n, "is_cached": true, ...} and n bytes: the table, serialised

A frame with a "failure" ends the exchange for that file. A frame is its length, 4 bytes, and JSON.
"""

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from pyprof.symbolize.error import SymbolizeError

if TYPE_CHECKING:
    from pyprof.symbolize.layout import Image, Layout
    from pyprof.symbolize.unwind_table import UnwindTable

HEADER = struct.Struct("<I")
NICENESS = -10
TABLE, CACHED, BUILD = b"t", b"c", b"b"


class TableJob:
    """Makes unwind tables for as long as the parent asks."""

    def load(self) -> None:
        import json  # noqa: F401, PLC0415 - out of reach once confined

        with contextlib.suppress(OSError):  # on a busy machine all walks wait for it, and it does little
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)

        import pyprof.symbolize.unwind_table  # noqa: F401, PLC0415 (imports numpy)

    def serve(self, parent: socket.socket) -> None:
        while True:
            kind, descriptor = _received(parent)
            if kind != TABLE:
                return
            try:
                _answer(parent, descriptor)
            finally:
                os.close(descriptor)


def _answer(parent: socket.socket, descriptor: int) -> None:
    """Send the table of one file. Raises: MemoryError, after which the process is of no use any more."""
    try:
        _exchange(parent, descriptor)
    except SymbolizeError as error:
        _send(parent, {"failure": str(error)})
    except (MemoryError, ConnectionError):
        raise
    except Exception as error:  # a file that nobody thought of must cost one table, not the capture
        _send(parent, {"failure": f"cannot be parsed ({type(error).__name__})"})


def _exchange(parent: socket.socket, descriptor: int) -> None:
    from pyprof.symbolize import unwind_table  # noqa: PLC0415 (imports numpy)
    from pyprof.symbolize.frame_pointers import keeps_frame_pointers  # noqa: PLC0415
    from pyprof.symbolize.layout import build_id, elf_layout, mapped_image  # noqa: PLC0415

    image = mapped_image(descriptor)
    layout = elf_layout(image)
    if keeps_frame_pointers(image, layout):
        _send(parent, {"keeps_pointers": True})
    digest = _digest(image, layout)
    build_id_text = build_id(image, layout) or "0"
    _send(parent, {"name": f"{build_id_text}-{digest.hex()}"})
    kind, cached = _received(parent)
    if kind == CACHED:
        try:
            serialised = bytes(mapped_image(cached))
            table = unwind_table.parsed(serialised, digest)
        except SymbolizeError:
            pass  # damaged: built anew
        else:
            _send(parent, _sizes(table, serialised, is_cached=True), serialised)
            return
        finally:
            os.close(cached)
    table = unwind_table.unwind_table(image, layout)
    serialised = unwind_table.serialised(table, digest)
    _send(parent, _sizes(table, serialised, is_cached=False), serialised)


def _sizes(table: "UnwindTable", serialised: bytes, *, is_cached: bool) -> dict[str, Any]:
    """Return what the parent must know of a serialised table: its arrays come last in it."""
    sizes = [len(table.blocks), len(table.rows), len(table.rules)]
    first = table.first_block
    return {"size": len(serialised), "arrays": sizes, "first_block": first, "is_cached": is_cached}


def _digest(image: "Image", layout: "Layout") -> bytes:
    from pyprof.symbolize.frame_section import frame_section  # noqa: PLC0415
    from pyprof.symbolize.unwind_table import source_digest  # noqa: PLC0415

    section = frame_section(image, layout)
    if section is None:
        raise SymbolizeError("no call frame information")
    return source_digest(image, layout, section)


def _received(parent: socket.socket) -> tuple[bytes, int]:
    """Return the next message: its kind, b"" at the end, and the descriptor that came with it, or -1."""
    kind, descriptors, _, _ = socket.recv_fds(parent, 1, 1)
    return kind, descriptors[0] if descriptors else -1


def _send(parent: socket.socket, value: dict[str, Any], payload: bytes = b"") -> None:
    import json  # noqa: PLC0415 - not at the parent's start

    header = json.dumps(value).encode()
    parent.sendall(HEADER.pack(len(header)) + header)
    parent.sendall(payload)
