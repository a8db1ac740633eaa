"""Reading forward through the bytes of a DWARF structure: integers, LEB128, encoded pointers.

A pointer's encoding is one byte: how it is written in the low four bits, what it is relative to in the next
three, and 0x80 for the address of the pointer instead of the pointer:

    0x1b  pcrel | sdata4     what gcc and clang write for x86-64
    0x3b  datarel | sdata4   the search table of .eh_frame_hdr
    0xff  omitted

Source: DWARF 5, 7.6; Linux Standard Base Core 5.0, 10.5 "DWARF Extensions".
"""

import struct

from pyprof.symbolize.error import SymbolizeError

WORD_MASK = (1 << 64) - 1
OMITTED = 0xFF
_LEB128_LIMIT = 16  # bytes; ten hold 64 bits, and an assembler may pad
_PCREL, _DATAREL = 0x10, 0x30
_RELATION, _FORMAT, _INDIRECT = 0x70, 0x0F, 0x80
_FORMS = {
    0x00: struct.Struct("<Q"),
    0x02: struct.Struct("<H"),
    0x03: struct.Struct("<I"),
    0x04: struct.Struct("<Q"),
    0x0A: struct.Struct("<h"),
    0x0B: struct.Struct("<i"),
    0x0C: struct.Struct("<q"),
}


class DwarfCursor:
    """A position in some bytes. Every read raises SymbolizeError at their end."""

    __slots__ = ("data", "position", "start")

    def __init__(self, data: bytes, start: int = 0) -> None:
        """start: virtual offset of the first byte, for pointers that are relative to themselves."""
        self.data = data
        self.position = 0
        self.start = start

    def byte(self) -> int:
        """Return the next byte."""
        if self.position >= len(self.data):
            raise SymbolizeError("call frame information ends inside of an entry")
        value = self.data[self.position]
        self.position += 1
        return value

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        limit = self.position + count
        if limit > len(self.data):
            raise SymbolizeError("call frame information ends inside of an entry")
        taken = self.data[self.position : limit]
        self.position = limit
        return taken

    def unsigned(self, size_bytes: int) -> int:
        """Return the next little-endian integer."""
        return int.from_bytes(self.take(size_bytes), "little")

    def signed(self, size_bytes: int) -> int:
        """Return the next little-endian integer in two's complement."""
        return int.from_bytes(self.take(size_bytes), "little", signed=True)

    def uleb128(self) -> int:
        """Return the next ULEB128, its low 64 bits."""
        return self._leb128()[0] & WORD_MASK

    def sleb128(self) -> int:
        """Return the next SLEB128, its low 64 bits as a signed number."""
        value, bits = self._leb128()
        if value >> (bits - 1):
            value -= 1 << bits
        return to_signed(value)

    def string(self) -> bytes:
        """Return the bytes up to the next zero byte, which is skipped."""
        end = self.data.find(b"\0", self.position)
        if end < 0:
            raise SymbolizeError("call frame information ends inside of an entry")
        taken = self.data[self.position : end]
        self.position = end + 1
        return taken

    def pointer(self, encoding: int, data_base: int | None = None) -> int:
        """Return the next encoded pointer as a virtual offset.

        data_base: virtual offset that a datarel pointer is relative to.

        Raises: SymbolizeError also for an encoding that needs memory or that x86-64 does not use.
        """
        if encoding & _INDIRECT:
            raise SymbolizeError(f"pointer encoding {encoding:#04x} needs the memory of the process")
        relation, place = encoding & _RELATION, self.start + self.position
        value = self.pointer_value(encoding)
        if relation == _PCREL:
            value += place
        elif relation == _DATAREL and data_base is not None:
            value += data_base
        elif relation:
            raise SymbolizeError(f"pointer encoding {encoding:#04x} is not used on x86-64")
        return value & WORD_MASK

    def pointer_value(self, encoding: int) -> int:
        """Return the number that the next encoded pointer is written as, relative to nothing."""
        written = encoding & _FORMAT
        if written in (0x01, 0x09):
            return self.uleb128() if written == 0x01 else self.sleb128()
        form = _FORMS.get(written)
        if form is None:
            raise SymbolizeError(f"pointer encoding {encoding:#04x} is unknown")
        return int(form.unpack(self.take(form.size))[0])

    def _leb128(self) -> tuple[int, int]:
        """Return the next LEB128 without regard to its sign, and its number of bits."""
        value = bits = 0
        while bits < 7 * _LEB128_LIMIT:
            byte = self.byte()
            value |= (byte & 0x7F) << bits
            bits += 7
            if byte < 0x80:
                return value, bits
        raise SymbolizeError(f"a LEB128 number of more than {_LEB128_LIMIT} bytes")


def to_signed(value: int) -> int:
    """Return the low 64 bits of a number as a signed number."""
    value &= WORD_MASK
    return value - (1 << 64) if value >> 63 else value
