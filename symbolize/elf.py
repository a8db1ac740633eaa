"""Functions of one ELF file, looked up by file offset.

The symbol tables become numpy arrays as they lie in the file; a name is decoded only when it is asked
for. Import this module late: it imports numpy.

    value   size  bind    name
    0x1000  0x40  GLOBAL  outer      0x1010 is `inner`: the smallest symbol that contains it
    0x1010  0x08  LOCAL   inner      0x1020 is `outer`
    0x1040  0     GLOBAL  by_hand    0x1044 is `by_hand`: assembly without a size goes on to the next symbol
    0x1050  0x10  GLOBAL  last       0x1060 is nothing: `last` says that it has ended

Source: man 5 elf; System V gABI, chapter 4 (symbol table).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

from pyprof.symbolize.arrays import np
from pyprof.symbolize.layout import (
    SHF_EXECINSTR,
    SHT_DYNSYM,
    SHT_STRTAB,
    SHT_SYMTAB,
    Image,
    Layout,
    Section,
    build_id,
    elf_layout,
    mapped_image,
    string,
    virtual_offset,
)
from pyprof.symbolize.plt import plt_target

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOTYPE, _FUNC, _GNU_IFUNC = 0, 2, 10  # STT_*
# STB_LOCAL, GLOBAL, WEAK; 10 is GNU_UNIQUE
_BIND_RANK = np.array([2, 0, 1] + [3] * 7 + [0] + [3] * 5, np.uint8)
_SHN_UNDEF, _SHN_LORESERVE, _SHN_XINDEX = 0, 0xFF00, 0xFFFF
_EM_ARM = 40
_ALIAS_LIMIT = 256  # names of one range that are compared

# Every symbol table of a file, in one form. `strings` is the section of its name, `rank` that of its binding.
_ROW = np.dtype(
    [("value", "u8"), ("size", "u8"), ("name", "u4"), ("section", "u2"), ("strings", "u2"), ("rank", "u1")]
)


class Symbol(NamedTuple):
    """The function that an offset belongs to."""

    name: str  # as in the file, without "@VERSION"; bytes that are not UTF-8 are lone surrogates
    offset: int  # bytes from the start of the function


class ElfSymbols:
    """The functions of one ELF file."""

    def __init__(self, image: Image) -> None:
        """Read the tables of a whole file. Raises: SymbolizeError when it is not an ELF file."""
        self._image = image
        self._layout = elf_layout(image)
        self.build_id = build_id(image, self._layout)  # lower-case hexadecimal, "" when it has none
        tables = [s for s in self._layout.sections if s.kind in (SHT_SYMTAB, SHT_DYNSYM)]
        rows = np.concatenate([np.empty(0, _ROW), *(self._functions(table) for table in tables)])
        rows = rows[np.argsort(rows["value"], kind="stable")]
        limits = rows["value"] + rows["size"]
        self._rows = rows
        self._starts = _column(rows["value"])
        self._limits = _column(limits)
        # Of all symbols up to each one: how far the furthest reaches. Never falls, so it can be searched.
        self._reach = _column(np.maximum.accumulate(limits))

    def symbol(self, file_offset: int) -> Symbol | None:
        """Return the function that contains a byte of the file, None when no function does."""
        target = virtual_offset(self._layout, file_offset)
        if target is None or target >= 1 << 64:
            return None
        name, start = self._containing(target) or self._unsized(target) or (b"", 0)
        if not name:
            imported, start = plt_target(self._image, self._layout, target) or (b"", 0)
            name = imported and imported + b"@plt"
        return Symbol(name.decode("utf-8", "surrogateescape"), target - start) if name else None

    def _containing(self, target: int) -> tuple[bytes, int] | None:
        """Return name and start of the smallest symbol whose range contains a virtual offset."""
        first, limit = bisect_right(self._reach, target), bisect_right(self._starts, target)
        hits = [index for index in range(first, limit) if self._limits[index] > target]
        sizes = {index: self._limits[index] - self._starts[index] for index in hits}
        for size in sorted(set(sizes.values())):
            innermost = [index for index in hits if sizes[index] == size]
            if name := self._best_name(innermost):
                return name, self._starts[innermost[0]]
        return None

    def _unsized(self, target: int) -> tuple[bytes, int] | None:
        """Return name and start of the symbol without a size that a virtual offset follows.

        It goes on to the next symbol or the end of its section.
        """
        limit = bisect_right(self._starts, target)
        if limit == 0:
            return None
        start = self._starts[limit - 1]
        first = bisect_left(self._starts, start, 0, limit)
        hits = [index for index in range(first, limit) if self._limits[index] == start]
        name = self._best_name([index for index in hits if self._is_in_section(index, target)])
        return (name, start) if name else None

    def _is_in_section(self, index: int, target: int) -> bool:
        number = int(self._rows["section"][index])
        if number >= len(self._layout.sections):
            return False
        section = self._layout.sections[number]
        return 0 <= target - section.virtual_offset < section.memory_bytes

    def _best_name(self, hits: list[int]) -> bytes:
        """Return the name that stands for symbols of one range; empty when none has a name.

        Global before weak before local; then the fewest leading underscores, the shortest, the first in
        the alphabet.
        """
        best: tuple[int, int, int, bytes] | None = None
        for index in hits[:_ALIAS_LIMIT]:
            row = self._rows[index]
            name = string(self._image, self._layout.sections[row["strings"]], int(row["name"]))
            rank = int(row["rank"]), len(name) - len(name.lstrip(b"_")), len(name), name
            if name and (best is None or rank < best):
                best = rank
        return best[3] if best else b""

    def _functions(self, table: Section) -> NDArray[np.void]:
        """Return the rows of one symbol table that stand for code in this file."""
        sections = self._layout.sections
        entry = _symbol_type(self._layout)
        if table.link >= len(sections) or sections[table.link].kind != SHT_STRTAB:
            return np.empty(0, _ROW)
        count = table.size_bytes // entry.itemsize
        raw = np.frombuffer(self._image, entry, count, table.file_offset) if count else np.empty(0, entry)
        kind = raw["info"] & 0xF
        shndx = raw["shndx"]
        here = (shndx != _SHN_UNDEF) & ((shndx < _SHN_LORESERVE) | (shndx == _SHN_XINDEX))
        is_code = np.zeros(0x10000, np.bool_)
        is_code[: min(len(sections), 0x10000)] = [s.flags & SHF_EXECINSTR != 0 for s in sections[:0x10000]]
        label = (kind == _NOTYPE) & is_code[shndx] & ~self._is_mapping_symbol(raw, sections[table.link])
        raw = raw[here & ((kind == _FUNC) | (kind == _GNU_IFUNC) | label)]
        rows = np.empty(len(raw), _ROW)
        rows["value"] = raw["value"]
        if self._layout.machine == _EM_ARM:  # bit 0 says Thumb code
            rows["value"] &= ~np.uint64(1)
        rows["size"] = np.minimum(raw["size"], ~rows["value"])  # no range goes beyond 2^64
        rows["section"] = raw["shndx"]
        rows["rank"] = _BIND_RANK[raw["info"] >> 4]
        rows["strings"] = table.link
        rows["name"] = raw["name"]
        return rows

    def _is_mapping_symbol(self, raw: NDArray[np.void], strings: Section) -> NDArray[np.bool_]:
        """Return which names start with "$" or ".L": marks of assemblers ($x, $d), not functions."""
        if strings.size_bytes == 0:
            return np.ones(len(raw), np.bool_)
        text = np.frombuffer(self._image, np.uint8, strings.size_bytes, strings.file_offset)
        first = text[np.minimum(raw["name"], strings.size_bytes - 1)]
        is_mark: NDArray[np.bool_] = (first == ord("$")) | (first == ord("."))
        return is_mark


def elf_symbols(descriptor: int) -> ElfSymbols:
    """Return the functions of the file that `descriptor` is open for.

    Raises: SymbolizeError when it is not an ELF file, or empty, or larger than 1 GiB.
    """
    return ElfSymbols(mapped_image(descriptor))


def _symbol_type(layout: Layout) -> np.dtype[np.void]:
    """Return the entry of a symbol table: Elf64_Sym or Elf32_Sym."""
    order = layout.order
    word, info, shndx = ("name", order + "u4"), [("info", "u1"), ("other", "u1")], ("shndx", order + "u2")
    if layout.is_64:
        return np.dtype([word, *info, shndx, ("value", order + "u8"), ("size", order + "u8")])
    return np.dtype([word, ("value", order + "u4"), ("size", order + "u4"), *info, shndx])


def _column(values: NDArray[np.uint64]) -> memoryview:
    """Return the numbers in a form that bisect reads ten times faster than an array."""
    return np.ascontiguousarray(values).data
