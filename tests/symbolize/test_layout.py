import io
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elfwriter import NOBITS, TEXT_OFFSET, TEXT_START, Sym, elf
from hypothesis import given
from hypothesis import strategies as st

from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.layout import build_id, elf_layout, section_name, virtual_offset

ID = bytes(range(20))
BOTH = [(64, "<"), (64, ">"), (32, "<"), (32, ">")]


@pytest.mark.parametrize(("bits", "order"), BOTH)
def test_build_id_is_found_in_segments_and_in_sections(bits: int, order: str) -> None:
    for options in ({}, {"note_segment": False}, {"has_sections": False}):
        image = elf(bits=bits, order=order, build_id=ID, **options)
        assert build_id(image, elf_layout(image)) == ID.hex()


def test_a_file_without_a_build_id_has_an_empty_one() -> None:
    assert build_id(elf(), elf_layout(elf())) == ""


@pytest.mark.parametrize(("bits", "order"), BOTH)
def test_file_offsets_become_virtual_offsets_in_loaded_segments_only(bits: int, order: str) -> None:
    layout = elf_layout(elf(bits=bits, order=order))
    assert virtual_offset(layout, TEXT_OFFSET + 5) == TEXT_START + 5
    assert virtual_offset(layout, TEXT_OFFSET - 1) is None
    assert virtual_offset(layout, TEXT_OFFSET + 0x1000) is None


@pytest.mark.parametrize(
    "image", [b"", b"\x7fELF", b"#!/bin/sh\n" * 10, elf()[:40], elf()[:4] + b"\7" + elf()[5:]]
)
def test_what_is_no_elf_file_is_refused(image: bytes) -> None:
    with pytest.raises(SymbolizeError, match="not an ELF file"):
        elf_layout(image)


def test_a_section_outside_of_the_file_is_empty() -> None:
    image = elf(
        [Sym(b"f", 0, 8)],
        overrides={".symtab": {"size": 1 << 40}, ".text": {"type": NOBITS, "size": 8 << 30}},
    )
    layout = elf_layout(image)
    sizes = {section_name(image, layout, section): section.size_bytes for section in layout.sections}
    assert sizes[b".symtab"] == 0
    assert sizes[b".text"] == 0


def test_section_counts_may_be_in_the_first_section() -> None:
    count = len(elf_layout(elf()).sections)
    image = elf(header={"e_shnum": 0}, overrides={"": {"size": count, "link": 6}})
    assert len(elf_layout(image).sections) == count


def test_a_huge_section_count_is_refused() -> None:
    with pytest.raises(SymbolizeError, match="65536"):
        elf_layout(elf(header={"e_shnum": 0}, overrides={"": {"size": 1 << 40}}))


def test_header_tables_outside_of_the_file_are_empty() -> None:
    layout = elf_layout(elf(header={"e_shoff": 1 << 50, "e_shnum": 7}))
    assert layout.sections == ()


@given(st.binary(min_size=1, max_size=400))
def test_note_bytes_never_break_the_build_id(noise: bytes) -> None:
    image = bytearray(elf(build_id=ID))
    start = elf_layout(bytes(image)).segments[1].file_offset
    image[start : start + len(noise)] = noise[: len(image) - start]
    layout = elf_layout(bytes(image)) if image[:4] == b"\x7fELF" else None
    assert layout is not None
    assert len(build_id(bytes(image), layout)) <= 128


@pytest.mark.parametrize(
    "path", sorted(Path("/usr/lib/x86_64-linux-gnu").glob("lib[a-d]*.so.?"))[:12], ids=str
)
def test_the_layout_is_what_pyelftools_reads(path: Path) -> None:
    image = path.read_bytes()
    layout, reference = elf_layout(image), ELFFile(io.BytesIO(image))
    assert [
        (s.virtual_offset, s.file_offset, s.memory_bytes, s.link, s.entry_bytes) for s in layout.sections
    ] == [
        tuple(s[field] for field in ("sh_addr", "sh_offset", "sh_size", "sh_link", "sh_entsize"))
        for s in reference.iter_sections()
    ]
    assert [section_name(image, layout, s).decode() for s in layout.sections] == [
        s.name for s in reference.iter_sections()
    ]
    assert [(s.flags, s.file_offset, s.virtual_offset) for s in layout.segments] == [
        (s["p_flags"], s["p_offset"], s["p_vaddr"]) for s in reference.iter_segments()
    ]
    notes = [
        n
        for s in reference.iter_segments("PT_NOTE")
        for n in s.iter_notes()
        if n["n_type"] == "NT_GNU_BUILD_ID"
    ]
    assert build_id(image, layout) == notes[0]["n_desc"]
