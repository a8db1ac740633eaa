import struct

import pytest
from elfwriter import NOBITS, Extra, elf
from framewriter import FRAME_START, Cie, Fde, frames

from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.frame_section import SECTION_LIMIT, FrameSection, frame_section
from pyprof.symbolize.layout import elf_layout

DATA = frames([Cie(), Fde(0, 8)])
END = bytes(4)
HEADER_START = 0x402000
LOAD, EH_FRAME_HDR = 1, 0x6474E550


def found(*extra: Extra, **options: object) -> FrameSection | None:
    image = elf(extra=extra, **options)  # type: ignore[arg-type]
    return frame_section(image, elf_layout(image))


def bytes_of(*extra: Extra, **options: object) -> bytes | None:
    """Return the bytes of the section that is found."""
    section = found(*extra, **options)
    image = elf(extra=extra, **options)  # type: ignore[arg-type]
    return image[section.file_offset :][: section.size_bytes] if section else None


def header(encoding: int = 0x1B, value: int = FRAME_START - HEADER_START - 4, version: int = 1) -> Extra:
    form = {0x0: "<Q", 0xA: "<h", 0xC: "<q"}.get(encoding & 0xF, "<i")
    data = bytes([version, encoding, 0x03, 0x3B]) + struct.pack(form, value) + bytes(8)
    return Extra(".eh_frame_hdr", data, HEADER_START, (EH_FRAME_HDR,))


def test_the_section_is_found_by_its_name() -> None:
    section = found(Extra(".eh_frame", DATA, FRAME_START))
    assert section is not None
    assert section[1:] == (len(DATA), FRAME_START, False)
    assert bytes_of(Extra(".eh_frame", DATA, FRAME_START)) == DATA


@pytest.mark.parametrize("name", [".text2", ".eh_frame_hdr", ".eh_frame2"])
def test_a_file_without_it_has_none(name: str) -> None:
    assert found(Extra(name, DATA, FRAME_START)) is None


@pytest.mark.parametrize("eh_frame", [END, frames([Cie()]), frames([Cie()]) + END, b"\1"])
def test_debug_frame_is_taken_where_eh_frame_describes_no_code(eh_frame: bytes) -> None:
    debug = Extra(".debug_frame", frames([Cie(augmentation=b""), Fde(0, 8)], is_debug=True), 0, flags=0)
    section = found(Extra(".eh_frame", eh_frame, FRAME_START), debug)
    assert section is not None
    assert section.is_debug_frame
    assert found(Extra(".eh_frame", eh_frame, FRAME_START)) is None
    whole = found(Extra(".eh_frame", eh_frame + DATA, FRAME_START), debug)
    assert whole is not None
    assert whole.is_debug_frame == (eh_frame == b"\1")


def test_a_compressed_section_is_not_read() -> None:
    debug = Extra(".debug_frame", DATA, 0, flags=0x800)
    assert found(debug) is None


@pytest.mark.parametrize("change", [{"size": 1 << 40}, {"type": NOBITS}, {"size": 0}, {"offset": 1 << 50}])
def test_a_section_that_is_not_in_the_file_is_none(change: dict[str, int]) -> None:
    assert found(Extra(".eh_frame", DATA, FRAME_START), header(), overrides={".eh_frame": change}) is None


@pytest.mark.parametrize(
    "pointer",
    [
        header(),
        header(0x3B, FRAME_START - HEADER_START),
        header(0x03, FRAME_START),
        header(0x00, FRAME_START),
        header(0x1C),
        header(0x1A),
    ],
)
def test_without_section_headers_the_segment_of_its_header_leads_to_it(pointer: Extra) -> None:
    extra = pointer, Extra(".eh_frame", DATA + END + b"other data", FRAME_START, (LOAD,))
    assert bytes_of(*extra, has_sections=False) == DATA


def test_without_an_end_it_goes_on_while_there_are_records() -> None:
    for rest in (b"", b"\x20\0\0\0 too few bytes", b"\xff\xff\xff\xff" + b"\xff" * 12):
        extra = header(), Extra(".eh_frame", DATA + rest, FRAME_START, (LOAD,))
        assert bytes_of(*extra, has_sections=False) == DATA


@pytest.mark.parametrize(
    "pointer",
    [
        header(0xFF),
        header(0x01),
        header(0x9B),
        header(version=2),
        header(value=1 << 30),
        header(value=-(1 << 31)),
        header(0x00, (1 << 64) - 1),
        header()._replace(data=b"\1\x1b\x03\x3b"),
        header()._replace(data=b""),
    ],
)
def test_a_header_that_leads_nowhere_is_none(pointer: Extra) -> None:
    extra = pointer, Extra(".eh_frame", DATA + END, FRAME_START, (LOAD,))
    assert found(*extra, has_sections=False) is None


@pytest.mark.parametrize("name", [".eh_frame", ".debug_frame"])
def test_a_section_larger_than_that_of_any_program_is_an_error(name: str) -> None:
    records = frames([Cie(), Fde(0, 8)], is_debug=name == ".debug_frame")
    assert found(Extra(name, records + bytes(SECTION_LIMIT - len(records)), FRAME_START))
    with pytest.raises(SymbolizeError, match="more call frame information than any program has"):
        found(Extra(name, records + bytes(SECTION_LIMIT + 1 - len(records)), FRAME_START))
