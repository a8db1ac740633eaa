"""Call frame programs, instruction by instruction, and row by row against readelf."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from cfiwriter import ENTRY, RAX, RBP, RBX, RIP, RSP, block, sleb, uleb

from pyprof.symbolize.cfi_entry import CommonEntry, FrameEntry
from pyprof.symbolize.cfi_program import CfaRule, Row, Rule, RuleKind, row_at
from pyprof.symbolize.cfi_reader import FrameTable
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.layout import elf_layout

START = 0x1000
RETURN_ADDRESS = (RIP, Rule(RuleKind.OFFSET, -8))
EXPRESSION = bytes.fromhex("7678 06")
NAMES = ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))


def row(program: bytes | str, distance: int = 0, common: bytes = ENTRY, *, code_factor: int = 1) -> Row:
    """Return the row of a program at a distance from the start of its code."""
    data = bytes.fromhex(program) if isinstance(program, str) else program
    cie = CommonEntry(code_factor, -8, RIP, 0x1B, True, False, common, 0x5000)
    return row_at(FrameEntry(START, START + 0x10000, cie, data, 0x6000), START + distance)


def rule(program: bytes | str, column: int) -> Rule | None:
    return dict(row(program).rules).get(column)


def test_push_and_frame_pointer() -> None:
    program = "41 0e10 8602 43 0d06 02ff 0c0708"  # push %rbp; mov %rsp,%rbp; ... ; ret
    assert row(program, 0) == Row(CfaRule(RSP, 8), (RETURN_ADDRESS,), RIP, False)
    assert row(program, 1) == Row(
        CfaRule(RSP, 16), ((RBP, Rule(RuleKind.OFFSET, -16)), RETURN_ADDRESS), RIP, False
    )
    assert row(program, 3).cfa == CfaRule(RSP, 16)
    assert row(program, 4).cfa == CfaRule(RBP, 16)
    assert row(program, 0x102).cfa == CfaRule(RBP, 16)
    assert row(program, 0x103).cfa == CfaRule(RSP, 8)


@pytest.mark.parametrize(
    ("advance", "distance"),
    [
        ("45", 5),
        ("02 05", 5),
        ("03 0500", 5),
        ("04 05000100", 0x10005),
        ("1d 0500000000000000", 5),
        ("01 ff0f0000".replace("ff0f0000", (START + 5 - 0x6001).to_bytes(4, "little", signed=True).hex()), 5),
    ],
)
def test_advance(advance: str, distance: int) -> None:
    assert row(advance + "0e20", distance - 1).cfa == CfaRule(RSP, 8)
    assert row(advance + "0e20", distance).cfa == CfaRule(RSP, 32)


def test_advance_counts_in_code_units() -> None:
    assert row("42 0e20", 7, code_factor=4).cfa == CfaRule(RSP, 8)
    assert row("42 0e20", 8, code_factor=4).cfa == CfaRule(RSP, 32)


@pytest.mark.parametrize(
    ("program", "cfa"),
    [
        ("0c 06 10", CfaRule(RBP, 16)),
        ("0d 06", CfaRule(RBP, 8)),
        ("0e 20", CfaRule(RSP, 32)),
        ("12 06 7e", CfaRule(RBP, 16)),  # def_cfa_sf: -2 * -8
        ("13 02", CfaRule(RSP, -16)),  # def_cfa_offset_sf
        (b"\x0f" + block(EXPRESSION), CfaRule(0, 0, EXPRESSION)),
        (b"\x0f" + block(EXPRESSION) + b"\x0c\x06\x10", CfaRule(RBP, 16)),
        (b"\x0f" + block(EXPRESSION) + b"\x0e\x10\x0d\x07", CfaRule(RSP, 16)),
    ],
)
def test_cfa(program: bytes | str, cfa: CfaRule) -> None:
    assert row(program).cfa == cfa


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("83 02", Rule(RuleKind.OFFSET, -16)),
        ("05 03 02", Rule(RuleKind.OFFSET, -16)),
        ("11 03 7e", Rule(RuleKind.OFFSET, 16)),
        ("2f 03 02", Rule(RuleKind.OFFSET, 16)),
        ("07 03", Rule(RuleKind.UNDEFINED)),
        ("08 03", Rule(RuleKind.SAME)),
        ("09 03 05", Rule(RuleKind.REGISTER, 5)),
        ("14 03 02", Rule(RuleKind.VAL_OFFSET, -16)),
        ("15 03 7e", Rule(RuleKind.VAL_OFFSET, 16)),
        (b"\x10\x03" + block(EXPRESSION), Rule(RuleKind.EXPRESSION, 0, EXPRESSION)),
        (b"\x16\x03" + block(EXPRESSION), Rule(RuleKind.VAL_EXPRESSION, 0, EXPRESSION)),
        ("83 02 c3", None),  # restore
        ("83 02 06 03", None),  # restore_extended
        ("83 02 0a 83 03 0b", Rule(RuleKind.OFFSET, -16)),
        ("00 2e 10 83 02", Rule(RuleKind.OFFSET, -16)),  # nop, GNU_args_size
    ],
)
def test_rule_of_a_register(program: bytes | str, expected: Rule | None) -> None:
    assert rule(program, RBX) == expected


def test_restore_returns_to_the_rule_of_the_cie() -> None:
    common = ENTRY + b"\x83\x05"
    assert dict(row("83 02", common=common).rules)[RBX] == Rule(RuleKind.OFFSET, -16)
    assert dict(row("83 02 c3", common=common).rules)[RBX] == Rule(RuleKind.OFFSET, -40)


def test_remembered_rows_nest_and_hold_the_cfa() -> None:
    program = "0a 0e20 8302 0a 0e30 8603 41 0b 41 0b"
    assert row(program, 0).cfa == CfaRule(RSP, 48)
    assert (row(program, 1).cfa, row(program, 1).rules) == (
        CfaRule(RSP, 32),
        ((RBX, Rule(RuleKind.OFFSET, -16)), RETURN_ADDRESS),
    )
    assert row(program, 2) == row("")


def test_undefined_return_address() -> None:
    assert rule("07 10", RIP) == Rule(RuleKind.UNDEFINED)


def test_vector_registers_have_no_rule() -> None:
    assert row(b"\x05" + uleb(17) + uleb(4) + b"\x05" + uleb(1 << 40) + uleb(4)) == row("")


def test_program_without_a_cfa_has_none() -> None:
    assert row("", common=b"").cfa is None


@pytest.mark.parametrize(
    "program",
    [
        *("0b", "0e", "05 03", "3f", "2d", "03 00", "10 03 05 00"),
        b"\x0a" * 65,
        bytes(70_000),
        b"\x10\x03" + block(bytes(2000)),
        b"\x0f" + uleb(1 << 60),
        b"\x11\x03" + sleb(1)[:0],
    ],
)
def test_invalid_program_is_refused(program: bytes | str) -> None:
    with pytest.raises(SymbolizeError):
        row(program)


def test_cfa_that_was_not_defined_cannot_be_changed() -> None:
    for program in ("0e 08", "0d 07", "13 01"):
        with pytest.raises(SymbolizeError):
            row(program, common=b"")


def test_numbers_may_be_of_any_size() -> None:
    assert row(b"\x0e" + uleb((1 << 64) - 1)).cfa == CfaRule(RSP, (1 << 64) - 1)
    assert rule(b"\x11\x00" + sleb(-(1 << 63)), RAX) == Rule(RuleKind.OFFSET, 1 << 66)


class Listed(NamedTuple):
    """A row as readelf prints it."""

    location: int
    limit: int
    cells: dict[str, str]  # by column: "CFA", "rbp", "ra"


def listed_rows(text: str) -> Iterator[Listed]:
    """Yield the rows of `readelf --debug-dump=frames-interp -W`; the last of those for one location.

    000000a4 0000000000000014 000000a8 FDE cie=00000000 pc=00000000000271d0..000000000002727c
       LOC           CFA      rbx   ra
    00000000000271d0 rsp+8    u     c-8
    """
    for part in re.sub(r"r\d+ \((\w+)\)", r"\1", text).split("\n\n"):  # a register is "r5 (rdi)"
        lines = part.splitlines()
        bounds = re.search(r" FDE .* pc=([0-9a-f]+)\.\.([0-9a-f]+)", lines[0]) if lines else None
        if not bounds or len(lines) < 3:
            continue
        columns = lines[1].split()[1:]
        rows = {int(line.split()[0], 16): line.split()[1:] for line in lines[2:]}
        limits = [*list(rows)[1:], int(bounds[2], 16)]
        for (location, cells), limit in zip(rows.items(), limits, strict=True):
            if location < limit:
                yield Listed(location, limit, dict(zip(columns, cells, strict=True)))


def cells_of(found: Row) -> dict[str, str]:
    """Return a row in the form of readelf; "u" for a register without a rule is left out."""
    assert found.cfa
    cells = {
        "CFA": "exp"
        if found.cfa.expression is not None
        else f"{NAMES[found.cfa.register]}{found.cfa.offset:+d}"
    }
    for column, rule in found.rules:
        name = "ra" if column == RIP else NAMES[column]
        cells[name] = {
            RuleKind.SAME: "s",
            RuleKind.UNDEFINED: "u",
            RuleKind.OFFSET: f"c{rule.value:+d}",
            RuleKind.VAL_OFFSET: f"v{rule.value:+d}",
            RuleKind.REGISTER: NAMES[rule.value] if 0 <= rule.value < len(NAMES) else "",
            RuleKind.EXPRESSION: "exp",
            RuleKind.VAL_EXPRESSION: "vexp",
        }[rule.kind]
    return cells


@pytest.mark.parametrize(
    ("path", "least"), [("/lib/x86_64-linux-gnu/libc.so.6", 20_000), ("/lib64/ld-linux-x86-64.so.2", 1000)]
)
def test_rows_are_those_of_readelf(path: str, least: int) -> None:
    if not shutil.which("readelf"):
        pytest.skip("readelf is not installed")
    # It ends with 1 where the file names another one with debugging information that is not installed.
    text = subprocess.run(
        ["readelf", "--debug-dump=frames-interp", "-W", path], check=False, capture_output=True, text=True
    ).stdout
    with open(path, "rb") as file:
        image = file.read()
    table = FrameTable(image, elf_layout(image))
    count = 0
    for listed in listed_rows(text.partition(".debug_frame section")[0]):
        for target in {listed.location, listed.limit - 1}:
            entry = table.entry_at(target)
            assert entry, hex(target)
            cells = cells_of(row_at(entry, target))
            assert {name: cells.get(name, "u") for name in listed.cells} == listed.cells, hex(target)
            count += 1
    assert count > least
