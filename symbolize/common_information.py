"""Common information entries (CIE): what the FDEs that refer to one have in common.

    01 | 7a 52 00 | 01 | 78 | 10 | 01 | 1b | 0c 07 08  90 01  00 00
    version, augmentation "zR", code and data alignment (1, -8), column of the return address (16),
    1 byte of augmentation data: the encoding of an FDE's pointers (0x1b), and the first instructions:
    def_cfa rsp+8; offset ra at cfa-8; nop; nop

Source: LSB 5.0 core, section 10.6.1.1; DWARF 5, section 6.4.1; gcc libgcc/unwind-dw2.c
(extract_cie_info).
"""

from __future__ import annotations

from typing import NamedTuple

from pyprof.symbolize.pointer_encoding import OMITTED, SIZES, is_readable

_RETURN_COLUMN = 16  # of x86-64
_ALIGNMENT_LIMIT = 1 << 12
_ALIGNED = 0x50  # DW_EH_PE_aligned: a pointer after some padding
_NAME_LIMIT = 16  # bytes of an augmentation


class CommonInformation(NamedTuple):
    """One CIE."""

    code_alignment: int
    data_alignment: int
    encoding: int  # of pointers in its FDEs; OMITTED where these cannot be read
    has_sizes: bool  # its FDEs tell the size of their augmentation data
    is_signal: bool  # of frames that a signal handler returns to
    is_supported: bool  # False: the rows of its FDEs cannot be known
    program: int  # where its instructions start, from the start of the body


UNREADABLE = CommonInformation(1, 1, OMITTED, False, False, False, 0)


class _Augmentation(NamedTuple):
    encoding: int
    is_signal: bool
    is_known: bool


def common_information(body: bytes) -> CommonInformation:
    """Return what the bytes of a CIE after its id say; UNREADABLE where they make no sense."""
    try:
        return _common_information(body)
    except IndexError:
        return UNREADABLE


def _common_information(body: bytes) -> CommonInformation:
    version, name_limit = body[0], body.find(b"\0", 1, 1 + _NAME_LIMIT)
    name, position = body[1:name_limit], name_limit + 1
    if version not in (1, 3, 4) or name_limit < 0 or name[:1] not in (b"", b"z"):
        return UNREADABLE
    if version == 4:
        if body[position : position + 2] != b"\x08\0":  # bytes of an address and of a segment
            return UNREADABLE
        position += 2
    code_alignment, position = _unsigned(body, position)
    data_alignment, position = _signed(body, position)
    column, position = (body[position], position + 1) if version == 1 else _unsigned(body, position)
    augmentation = _Augmentation(0, False, True)
    if name:
        size_bytes, position = _unsigned(body, position)
        augmentation = _augmentation(name[1:], body[position : position + size_bytes])
        position += size_bytes
    is_usual = column == _RETURN_COLUMN and max(code_alignment, abs(data_alignment)) <= _ALIGNMENT_LIMIT
    is_supported = is_usual and augmentation.is_known and position <= len(body)
    if not is_supported:
        code_alignment = data_alignment = 1
    return CommonInformation(
        code_alignment,
        data_alignment,
        augmentation.encoding if is_readable(augmentation.encoding) else OMITTED,
        bool(name),
        augmentation.is_signal,
        is_supported,
        min(position, len(body)),
    )


def _augmentation(letters: bytes, data: bytes) -> _Augmentation:
    """Return what the letters after "z" say: R encoding, S signal, P personality, L language's data, B, G."""
    encoding, is_signal, position = 0, False, 0
    for index, letter in enumerate(letters):
        if letter == ord("R"):
            encoding, position = data[position], position + 1
        elif letter == ord("L"):
            position += 1
        elif letter == ord("P") and data[position] != _ALIGNED:
            position += 1 + SIZES.get(data[position] & 0xF, 99)
        elif letter == ord("S"):
            is_signal = True
        else:
            has_encoding = ord("R") in letters[:index]
            return _Augmentation(encoding if has_encoding else OMITTED, is_signal, False)
    return _Augmentation(encoding, is_signal, True)


def _unsigned(body: bytes, position: int) -> tuple[int, int]:
    """Return an LEB128 number and where it ends. Raises: IndexError when it is not one of 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        byte = body[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
    raise IndexError


def _signed(body: bytes, position: int) -> tuple[int, int]:
    value, limit = _unsigned(body, position)
    bits = 7 * (limit - position)
    return value - (1 << bits) if value >> (bits - 1) else value, limit
