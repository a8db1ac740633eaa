import os
import resource
import shutil
import struct
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from elfwriter import (
    GNU_IFUNC,
    LOCAL,
    NOBITS,
    NOTYPE,
    OBJECT,
    TEXT_BYTES,
    TEXT_OFFSET,
    WEAK,
    Sym,
    elf,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pyprof.symbolize.elf import ElfSymbols, Symbol, elf_symbols
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.layout import PF_X, PT_LOAD, elf_layout, virtual_offset


def found(image: bytes, place: int) -> Symbol | None:
    """Return the symbol at a place of the code section."""
    return ElfSymbols(image).symbol(TEXT_OFFSET + place)


OVERLAPPING = [
    Sym(b"outer", 0x00, 0x40),
    Sym(b"inner", 0x10, 0x08, bind=LOCAL),
    Sym(b"by_hand", 0x40),
    Sym(b"last", 0x50, 0x10),
]


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("table", ["symbols", "dynamic"])
@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (0x00, Symbol("outer", 0)),
        (0x10, Symbol("inner", 0)),
        (0x17, Symbol("inner", 7)),
        (0x18, Symbol("outer", 0x18)),
        (0x20, Symbol("outer", 0x20)),
        (0x44, Symbol("by_hand", 4)),
        (0x50, Symbol("last", 0)),
        (0x60, None),
        (0x800, None),
    ],
)
def test_the_smallest_symbol_that_contains_a_place_names_it(
    bits: int, order: str, table: str, place: int, expected: Symbol | None
) -> None:
    assert found(elf(**{table: OVERLAPPING}, bits=bits, order=order), place) == expected


@pytest.mark.parametrize(
    ("aliases", "name"),
    [
        (
            [Sym(b"local", 0, 8, bind=LOCAL), Sym(b"weak_one", 0, 8, bind=WEAK), Sym(b"__global", 0, 8)],
            "__global",
        ),
        ([Sym(b"local", 0, 8, bind=LOCAL), Sym(b"weak_one", 0, 8, bind=WEAK)], "weak_one"),
        ([Sym(b"_read", 0, 8), Sym(b"longest_read", 0, 8)], "longest_read"),
        ([Sym(b"readv", 0, 8), Sym(b"read", 0, 8)], "read"),
        ([Sym(b"bb", 0, 8), Sym(b"aa", 0, 8)], "aa"),
        ([Sym(b"sized", 0, 8, bind=LOCAL), Sym(b"unsized", 0, 0)], "sized"),
        ([Sym(b"", 0, 8), Sym(b"named", 0, 16, bind=LOCAL)], "named"),
        ([Sym(b"memcpy", 0, 8, kind=GNU_IFUNC)], "memcpy"),
        ([Sym(b"_start", 0, 0, kind=NOTYPE)], "_start"),
        ([Sym(b"fopen@@GLIBC_2.2.5", 0, 8)], "fopen"),
        ([Sym(b"gr\xc3\xb6sse", 0, 8)], "größe".replace("ß", "ss")),
        ([Sym(b"\x1b[2J</script>\xff", 0, 8)], "\x1b[2J</script>\udcff"),
    ],
)
def test_one_name_stands_for_all_aliases(aliases: list[Sym], name: str) -> None:
    for order in (aliases, aliases[::-1]):
        assert found(elf(order), 0) == Symbol(name, 0)


@pytest.mark.parametrize(
    "sym",
    [
        Sym(b"variable", 0, 8, kind=OBJECT),
        Sym(b"undefined", 0, 8, section=0),
        Sym(b"absolute", 0, 8, section=0xFFF1),
        Sym(b"$x", 0, 0, kind=NOTYPE),
        Sym(b".L12", 0, 0, kind=NOTYPE),
        Sym(b"_end", 0, 0, kind=NOTYPE, section=2),
        Sym(b"", 0, 8),
    ],
)
def test_what_is_not_code_is_not_a_symbol(sym: Sym) -> None:
    assert found(elf([sym]), 0) is None


def test_a_symbol_without_a_size_ends_with_its_section() -> None:
    image = elf([Sym(b"_init", 0)], overrides={".text": {"size": 0x20}})
    assert found(image, 0x1F) == Symbol("_init", 0x1F)
    assert found(image, 0x20) is None


def test_thumb_code_is_found_at_its_even_address() -> None:
    image = elf([Sym(b"thumb", 0x11, 8)], bits=32, machine=40)
    assert found(image, 0x10) == Symbol("thumb", 0)


def test_both_symbol_tables_count() -> None:
    image = elf([Sym(b"hidden", 0x10, 8, bind=LOCAL)], [Sym(b"exported", 0x20, 8)])
    assert found(image, 0x10) == Symbol("hidden", 0)
    assert found(image, 0x20) == Symbol("exported", 0)


@pytest.mark.parametrize(
    "options",
    [
        {"has_sections": False},
        {"has_segments": False},
        {"header": {"e_shnum": 0}},
        {"overrides": {".symtab": {"size": 1 << 40}}},
        {"overrides": {".symtab": {"link": 99}}},
        {"overrides": {".symtab": {"link": 1}}},
        {"overrides": {".strtab": {"size": 1 << 40}}},
        {"overrides": {".strtab": {"size": 0}}},
        {"overrides": {".symtab": {"type": NOBITS, "size": 8 << 30}}},
    ],
)
def test_a_broken_or_stripped_table_gives_no_names(options: dict[str, dict[str, int]]) -> None:
    assert found(elf([Sym(b"f", 0, 8)], **options), 0) is None


def test_a_section_of_8_gib_without_bytes_takes_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    image = elf([Sym(b"f", 0, 8)], overrides={".text": {"type": NOBITS, "size": 8 << 30}})
    assert found(image, 0) == Symbol("f", 0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_size_beyond_the_address_space_does_not_wrap() -> None:
    assert found(elf([Sym(b"endless", 0, (1 << 64) - 1), Sym(b"f", 8, 8)]), 0x20) == Symbol("endless", 0x20)


def test_a_file_that_is_no_elf_file_is_an_error(tmp_path: Path) -> None:
    for content, message in ((b"", "cannot be mapped"), (b"#!/bin/sh\n" * 20, "not an ELF file")):
        (tmp_path / "file").write_bytes(content)
        with open(tmp_path / "file", "rb") as file, pytest.raises(SymbolizeError, match=message):
            elf_symbols(file.fileno())


def test_a_file_of_more_than_1_gib_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w+b") as file:
        os.truncate(file.fileno(), (1 << 30) + 1)
        with pytest.raises(SymbolizeError, match="1 GiB"):
            elf_symbols(file.fileno())


SAMPLE = elf(OVERLAPPING, [Sym(b"x", 0x70, 4), Sym(b"y", 0x80)], build_id=b"\1" * 20)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 200) | st.integers(0x2000, len(SAMPLE) - 8),
            st.sampled_from(["<B", "<H", "<I", "<Q"]),
            st.integers(0, 300) | st.integers(0, (1 << 64) - 1),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_mutated_files_give_names_or_an_error_of_ours(mutations: list[tuple[int, str, int]]) -> None:
    image = bytearray(SAMPLE)
    for place, form, value in mutations:
        struct.pack_into(form, image, place, value % (1 << (8 * struct.calcsize(form))))
    try:
        symbols = ElfSymbols(bytes(image))
    except SymbolizeError:
        return
    for place in (0, 0x10, 0x44, 0x60, 0x72, 0x84, TEXT_BYTES - 1):
        symbols.symbol(TEXT_OFFSET + place)


CODE = """
#include <stdlib.h>
static __attribute__((noinline)) int helper(int n) { return atoi("7") + n; }
__attribute__((noinline)) int work(int n) { return helper(n) * 3; }
int main(int argc, char **argv) { return work(argc) + (int)strtol(argv[0], 0, 10); }
"""
CXX_CODE = """
#include <vector>
#include <algorithm>
#include <cstdio>
namespace ns { struct Worker { template <class T> __attribute__((noinline)) T run(std::vector<T> v) const {
    std::sort(v.begin(), v.end(), [](T a, T b) { return a > b; }); return v[0]; } }; }
int main(int argc, char **) { std::puts("x"); return ns::Worker().run(std::vector<int>(argc + 100)); }
"""


def _compiled(folder: Path, compiler: str, code: str, *options: str) -> Path:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    source = folder / ("code.c" if compiler == "gcc" else "code.cc")
    source.write_text(code)
    subprocess.run([compiler, "-O1", "-g0", *options, source, "-o", folder / "program"], check=True)
    return folder / "program"


def _oracle(path: Path) -> dict[int, set[tuple[str, int]]]:
    """Return what readelf knows: virtual offset -> names and sizes of functions there."""
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    text = subprocess.run(
        ["readelf", "-sW", "--dyn-syms", path], check=True, capture_output=True, encoding="utf-8"
    ).stdout
    functions = defaultdict(set)
    for line in text.splitlines():
        columns = line.split()
        if len(columns) >= 8 and columns[3] in ("FUNC", "IFUNC", "NOTYPE") and columns[6].isdigit():
            functions[int(columns[1], 16)].add((columns[7].partition("@")[0], int(columns[2], 0)))
    return functions


def _check_against_readelf(path: Path, count: int) -> None:
    symbols, functions = elf_symbols_of(path), _oracle(path)
    layout = elf_layout(path.read_bytes())
    named = 0
    for segment in [s for s in layout.segments if s.kind == PT_LOAD and s.flags & PF_X]:
        step = max(1, segment.size_bytes // count) | 1
        for offset in range(segment.file_offset, segment.file_offset + segment.size_bytes, step):
            target = virtual_offset(layout, offset)
            assert target is not None
            answer = symbols.symbol(offset)
            covering = {
                name
                for start, names in functions.items()
                for name, size in names
                if start <= target < start + size
            }
            if answer is None:
                assert not covering
            elif not answer.name.endswith("@plt"):
                named += 1
                names = functions[target - answer.offset]
                assert answer.name in {name for name, _ in names}
                assert answer.name in covering or (not covering and (answer.name, 0) in names)
    assert named


def elf_symbols_of(path: Path) -> ElfSymbols:
    with open(path, "rb") as file:
        return elf_symbols(file.fileno())


@pytest.mark.parametrize(
    "path",
    [
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
        "/usr/bin/python3.11",
        "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    ],
)
def test_every_answer_about_a_real_file_is_one_of_readelf(path: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"no {path}")
    _check_against_readelf(Path(path), 150)


@pytest.mark.parametrize("options", [(), ("-static",), ("-no-pie",)])
def test_every_answer_about_a_c_program_is_one_of_readelf(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = _compiled(tmp_path, "gcc", CODE, *options)
    _check_against_readelf(path, 200)


def test_addr2line_names_the_same_functions_of_a_cxx_program(tmp_path: Path) -> None:
    path = _compiled(tmp_path, "g++", CXX_CODE)
    if shutil.which("addr2line") is None:
        pytest.skip("addr2line is not installed")
    _check_against_readelf(path, 200)
    symbols, layout, functions = elf_symbols_of(path), elf_layout(path.read_bytes()), _oracle(path)
    checked = 0
    for start, names in functions.items():
        offsets = [
            start - s.virtual_offset + s.file_offset
            for s in layout.segments
            if s.kind == PT_LOAD and s.flags & PF_X
        ]
        answer = symbols.symbol(offsets[0]) if offsets[0] >= 0 else None
        if answer is not None and max(size for _, size in names) > 0:
            output = subprocess.run(
                ["addr2line", "-f", "-e", path, hex(start)], check=True, capture_output=True
            ).stdout
            assert answer.offset == 0
            assert output.split()[0].decode() in {name for name, _ in names}
            checked += 1
    assert checked >= 4


@pytest.mark.parametrize(
    "options", [(), ("-fcf-protection=full",), ("-Wl,-z,lazy",), ("-Wl,-z,now", "-fno-plt")]
)
def test_plt_stubs_are_named_as_objdump_names_them(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = _compiled(tmp_path, "gcc", CODE, *options)
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed")
    _check_stubs(path)


def _check_stubs(path: Path) -> int:
    symbols = elf_symbols_of(path)
    listing = subprocess.run(["objdump", "-d", path], check=True, capture_output=True, text=True).stdout
    stubs = [line.split() for line in listing.splitlines() if line.endswith("@plt>:") and "*ABS*" not in line]
    for address, name in stubs:
        offset = int(address, 16)  # the first segments of these programs are mapped as they lie in the file
        assert symbols.symbol(offset) == Symbol(name.strip("<>:"), 0)
    return len(stubs)


@pytest.mark.parametrize(
    "path", ["/usr/lib/x86_64-linux-gnu/libssl.so.3", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6"]
)
def test_plt_stubs_of_real_libraries_are_named_as_objdump_names_them(path: str) -> None:
    if not Path(path).exists() or shutil.which("objdump") is None:
        pytest.skip(f"no {path} or no objdump")
    assert _check_stubs(Path(path)) > 100
