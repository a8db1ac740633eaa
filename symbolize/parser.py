"""The inside of the symbol worker: a request in, frames out. Runs confined; imports the slow libraries."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyprof.symbolize import demangle, wire
from pyprof.symbolize.elf import ElfSymbols, elf_symbols
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.layout import FILE_LIMIT
from pyprof.symbolize.text import printable

if TYPE_CHECKING:
    from pyprof.symbolize.worker import Binary, Request

__all__ = ["frames", "load"]

load = demangle.load


def frames(request: "Request") -> Iterator[bytes]:
    """Yield the frames that answer a request.

    Raises: MemoryError, after which the process is of no use any more.
    """
    try:
        symbols = _symbols(request.binary)
        if request.binary.build_id and request.binary.build_id.lower() != symbols.build_id:
            yield wire.report_frame(wire.Report((), (), symbols.build_id, "build id differs", False))
            return
        found = [symbols.symbol(offset) for offset in request.offsets]
    except SymbolizeError as error:
        yield wire.report_frame(wire.Report((), (), "", str(error), False))
        return
    except MemoryError:
        raise
    except Exception as error:  # a file that nobody thought of must cost one module, not the capture
        reason = f"cannot be parsed ({type(error).__name__})"
        yield wire.report_frame(wire.Report((), (), "", reason, False))
        return
    names = list(dict.fromkeys(symbol.name for symbol in found if symbol))
    places = {name: place for place, name in enumerate(names)}
    picks = tuple(places[symbol.name] if symbol else -1 for symbol in found)
    more = any(demangle.is_mangled(name) for name in names)
    yield wire.report_frame(
        wire.Report(tuple(printable(name) for name in names), picks, symbols.build_id, "", more)
    )
    if more:
        yield wire.readable_frame([printable(demangle.readable_name(name)) for name in names])


def _symbols(binary: "Binary") -> ElfSymbols:
    if binary.fd >= 0:
        return elf_symbols(binary.fd)
    if len(binary.data) > FILE_LIMIT:
        raise SymbolizeError("larger than 1 GiB")
    return ElfSymbols(binary.data)
