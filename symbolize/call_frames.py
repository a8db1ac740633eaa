"""The FDEs of a frame section: ranges of code, and the programs that tell how to unwind from there.

    10 00 00 00 | 1c 00 00 00 | a0 d1 ff ff | 1a 00 00 00 | 00 | 41 0e 10 86 02 ...
    length, CIE, start of the code (relative to this word), its size, augmentation data (0 bytes), program

Source: LSB 5.0 core, section 10.6.1.2; DWARF 5, section 6.4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pyprof.symbolize.arrays import np
from pyprof.symbolize.common_information import CommonInformation, common_information
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.frame_records import PADDING, Records, frame_records, words
from pyprof.symbolize.frame_section import FrameSection
from pyprof.symbolize.layout import Image
from pyprof.symbolize.leb128 import unsigned_numbers
from pyprof.symbolize.pointer_encoding import FORMS, OMITTED, PLACE_RELATIVE, SIZES

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CIE_LIMIT = 1 << 20  # bytes of different CIEs in a file; a real file has a handful of CIEs


class Programs(NamedTuple):
    """Instructions of many CIEs or FDEs, ascending and apart from each other, as places in a code."""

    starts: NDArray[np.int64]  # greater than 0, and the byte before is in no program
    limits: NDArray[np.int64]
    cies: NDArray[np.int64]  # index of the CIE of each

    def slice(self, first: int, limit: int) -> Programs:
        """Return some of them, by index."""
        return Programs(*(column[first:limit] for column in self))


class CallFrames(NamedTuple):
    """The FDEs of a file in the order of the section, of those whose range can be read."""

    code: NDArray[np.uint8]  # the section and PADDING
    programs: Programs  # of the FDEs
    cies: tuple[CommonInformation, ...]  # without duplicates
    cie_code: NDArray[np.uint8]  # their programs and PADDING
    cie_programs: Programs  # one for each of `cies`
    starts: NDArray[np.uint64]  # virtual offsets of the code; 0 for code that the linker dropped
    sizes: NDArray[np.uint64]  # bytes of code


class _Ranges(NamedTuple):
    """Ranges of code as some FDEs tell them."""

    starts: NDArray[np.uint64]
    sizes: NDArray[np.uint64]
    limits: NDArray[np.int64]  # places after the two numbers


def call_frames(image: Image, section: FrameSection) -> CallFrames:
    """Return the FDEs of a section.

    A record that makes no sense is left out. Raises: SymbolizeError when there are too many records.
    """
    raw = np.frombuffer(image, np.uint8, section.size_bytes, section.file_offset)
    code = np.concatenate([raw, PADDING])
    records = frame_records(code, section.is_debug_frame)
    fdes, cie_records = _fdes(records)
    cies, bodies, indices = _common(code, records, cie_records)
    encodings = np.array([cie.encoding for cie in cies], np.int64)[indices]
    ranges = _ranges(code, records.bodies[fdes], encodings, section.virtual_offset)
    sized = np.array([cie.has_sizes for cie in cies], np.bool_)[indices]
    numbers = unsigned_numbers(code, np.minimum(ranges.limits, len(code) - len(PADDING)))
    starts = np.where(sized, numbers.limits + numbers.values, ranges.limits)
    limits = records.limits[fdes]
    good = np.flatnonzero((encodings != OMITTED) & (starts <= limits))
    programs = Programs(starts[good], limits[good], indices[good])
    return CallFrames(code, programs, cies, *_joined(cies, bodies), ranges.starts[good], ranges.sizes[good])


def _fdes(records: Records) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the FDEs that refer to a CIE, and of the CIE of each."""
    cie_indices = np.flatnonzero(records.is_cie)
    cie_starts = records.starts[cie_indices]
    fdes = np.flatnonzero(~records.is_cie)
    if not len(cie_indices):
        return fdes[:0], fdes[:0]
    claimed = records.cies[fdes]
    slots = np.minimum(np.searchsorted(cie_starts, claimed), len(cie_starts) - 1)
    is_right = cie_starts[slots] == claimed
    return fdes[is_right], cie_indices[slots[is_right]]


def _common(
    code: NDArray[np.uint8], records: Records, cie_records: NDArray[np.int64]
) -> tuple[tuple[CommonInformation, ...], list[bytes], NDArray[np.int64]]:
    """Return the CIEs of some records without duplicates, their bytes, and the index for each record."""
    numbers: dict[bytes, int] = {}
    used, inverse = np.unique(cie_records, return_inverse=True)
    bodies = [code[records.bodies[record] : records.limits[record]].tobytes() for record in used.tolist()]
    indices = np.array([numbers.setdefault(body, len(numbers)) for body in bodies], np.int64)
    if sum(map(len, numbers)) > _CIE_LIMIT:
        raise SymbolizeError(f"more than {_CIE_LIMIT} bytes of different CIEs")
    return tuple(map(common_information, numbers)), list(numbers), indices[inverse]


def _joined(cies: tuple[CommonInformation, ...], bodies: list[bytes]) -> tuple[NDArray[np.uint8], Programs]:
    """Return the programs of CIEs in one code, each after a byte of its own."""
    programs = [b"\0" + body[cie.program :] for cie, body in zip(cies, bodies, strict=True)]
    limits = np.cumsum([len(program) for program in programs], dtype=np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), limits])[: len(limits)] + 1
    code = np.frombuffer(b"".join(programs) + PADDING.tobytes(), np.uint8)
    return code, Programs(starts, limits, np.arange(len(cies)))


def _ranges(
    code: NDArray[np.uint8], places: NDArray[np.int64], encodings: NDArray[np.int64], virtual_offset: int
) -> _Ranges:
    """Return the ranges at some places; zeros where the encoding is OMITTED."""
    starts, sizes = np.zeros(len(places), np.uint64), np.zeros(len(places), np.uint64)
    limits = places.copy()
    for encoding in np.unique(encodings).tolist():
        if encoding != OMITTED:
            chosen = np.flatnonzero(encodings == encoding)
            place, form, size_bytes = places[chosen], FORMS[encoding & 0xF], SIZES[encoding & 0xF]
            start = words(code, form)[place].astype(np.uint64)
            if encoding & 0xF0 == PLACE_RELATIVE:
                base = place.astype(np.uint64) + np.uint64(virtual_offset)
                start = np.where(start != 0, start + base, start)
            starts[chosen] = start
            sizes[chosen] = words(code, form.replace("i", "u"))[place + size_bytes]
            limits[chosen] += 2 * size_bytes
    return _Ranges(starts, sizes, limits)
