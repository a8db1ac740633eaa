"""Rows by file offset, and what is known of code without any."""

import pytest
from cfiwriter import CODE_OFFSET, RIP, RSP, Cie, Fde, elf_with_frames

from pyprof.symbolize import unwind_image
from pyprof.symbolize.cfi_program import CfaRule, Row, Rule, RuleKind
from pyprof.symbolize.unwind_image import UnwindImage

ENTRY_ROW = Row(CfaRule(RSP, 8), ((RIP, Rule(RuleKind.OFFSET, -8)),), RIP, is_signal_frame=False)
SIGNAL_RETURN = bytes.fromhex("48c7c00f0000000f05")


def test_caller_is_looked_up_in_its_call() -> None:
    image = UnwindImage(elf_with_frames([Fde(0, 0x10), Fde(0x10, 0x10, b"\x0e\x20")]))
    assert image.row_at(CODE_OFFSET + 0x10, is_exact=False) == ENTRY_ROW
    exact = image.row_at(CODE_OFFSET + 0x10, is_exact=True)
    assert exact
    assert exact.cfa == CfaRule(RSP, 32)


def test_code_outside_of_all_segments_has_no_row() -> None:
    image = UnwindImage(elf_with_frames([Fde(0, 0x10)]))
    for file_offset in (0, CODE_OFFSET - 1, 1 << 70, -5):
        assert image.row_at(file_offset, is_exact=True) is None


@pytest.mark.parametrize("image", [None, b"", b"\x7fELF", elf_with_frames([Fde(0, 0x10)], machine=183)])
def test_unreadable_file_has_neither_rows_nor_calls(image: bytes | None) -> None:
    unwind_image = UnwindImage(image)
    assert unwind_image.row_at(CODE_OFFSET, is_exact=True) is None
    assert not unwind_image.is_after_call(CODE_OFFSET + 8)


def test_invalid_information_is_a_row_without_a_cfa() -> None:
    row = UnwindImage(elf_with_frames([Fde(0, 0x10, b"\x3f")])).row_at(CODE_OFFSET, is_exact=True)
    assert row
    assert row.cfa is None


def test_code_that_ends_a_signal_handler_needs_no_entry() -> None:
    image = UnwindImage(elf_with_frames(code={0x20: SIGNAL_RETURN}))
    row = image.row_at(CODE_OFFSET + 0x20, is_exact=False)
    assert row
    assert row.is_signal_frame
    assert dict(row.rules)[RIP] == Rule(RuleKind.OFFSET, 168)
    assert dict(row.rules)[RSP] == Rule(RuleKind.OFFSET, 160)
    assert dict(row.rules)[8] == Rule(RuleKind.OFFSET, 40)
    assert image.row_at(CODE_OFFSET + 0x20, is_exact=True) == row
    assert image.row_at(CODE_OFFSET + 0x27, is_exact=True) == row
    assert image.row_at(CODE_OFFSET + 0x27, is_exact=False) is None


def test_function_before_the_end_of_a_signal_handler_is_not_meant() -> None:
    image = UnwindImage(elf_with_frames([Fde(0, 0x20)], code={0x20: SIGNAL_RETURN}))
    row = image.row_at(CODE_OFFSET + 0x20, is_exact=False)
    assert row
    assert row.is_signal_frame


def test_entry_of_a_signal_frame_comes_before_its_bytes() -> None:
    frames = [Fde(0x1F, 0x20, b"\x0e\x30", Cie(augmentation=b"zRS"))]
    row = UnwindImage(elf_with_frames(frames, code={0x20: SIGNAL_RETURN})).row_at(CODE_OFFSET + 0x20, False)
    assert row
    assert row.cfa == CfaRule(RSP, 48)


def test_call_is_looked_for_before_the_place() -> None:
    image = UnwindImage(elf_with_frames(code={0x10: bytes.fromhex("e800000000")}))
    assert image.is_after_call(CODE_OFFSET + 0x15)
    assert not image.is_after_call(CODE_OFFSET + 0x14)
    assert not image.is_after_call(2)
    assert not image.is_after_call(1 << 40)


def test_programs_of_a_file_are_not_run_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unwind_image, "_PROGRAM_BUDGET", 1000)
    image = UnwindImage(elf_with_frames([Fde(0, 0x100, bytes(290))]))
    rows = [image.row_at(CODE_OFFSET + distance, is_exact=True) for distance in range(5)]
    assert [row is not None and row.cfa is not None for row in rows] == [True, True, True, False, False]
