"""From one frame's registers to its caller's."""

import pytest
from cfiwriter import RAX, RBP, RBX, RIP, RSP
from stackwriter import CODE, STACK, stack_copy

from pyprof.symbolize.cfi_program import CfaRule, Row, Rule, RuleKind
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.frame_state import FrameState
from pyprof.symbolize.stack_copy import StackCopy, WalkEnd

BREG = bytes([0x70 + RSP, 8])  # DW_OP_breg7 8
OFFSET = Rule(RuleKind.OFFSET, -8)


def row(cfa: CfaRule | None = CfaRule(RSP, 16), is_signal_frame: bool = False, **rules: Rule) -> Row:  # noqa: B008
    columns = {"rax": RAX, "rbx": RBX, "rbp": RBP, "rsp": RSP, "r12": 12, "rip": RIP}
    found = {RIP: OFFSET, **{columns[name]: rule for name, rule in rules.items()}}
    return Row(cfa, tuple(sorted(found.items())), RIP, is_signal_frame)


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (Rule(RuleKind.OFFSET, -16), 77),
        (Rule(RuleKind.VAL_OFFSET, -16), STACK),
        (Rule(RuleKind.REGISTER, 12), 12),
        (Rule(RuleKind.REGISTER, 99), None),
        (Rule(RuleKind.SAME), 3),
        (Rule(RuleKind.UNDEFINED), None),
        (Rule(RuleKind.EXPRESSION, 0, bytes([0x23, 8])), 99),  # plus_uconst: the word at the CFA + 8
        (Rule(RuleKind.EXPRESSION, 0, BREG), CODE),
        (Rule(RuleKind.VAL_EXPRESSION, 0, BREG), STACK + 8),
        (Rule(RuleKind.VAL_EXPRESSION, 0, b""), STACK + 16),
        (Rule(RuleKind.OFFSET, 1 << 40), None),
        (Rule(RuleKind.OFFSET, -24), None),
    ],
)
def test_rule_of_a_register(rule: Rule, value: int | None) -> None:
    state = FrameState(stack_copy(77, CODE, 88, 99, rbx=3, r12=12, rip=CODE))
    assert state.enter_caller(row(rbx=rule)) is None
    assert state.registers[RBX] == value
    assert (state.rip, state.rsp, state.is_exact) == (CODE, STACK + 16, False)


def test_preserved_registers_stay_and_others_are_lost() -> None:
    registers = {
        "rax": 1,
        "rdx": 2,
        "rcx": 3,
        "rbx": 4,
        "rsi": 5,
        "rdi": 6,
        "rbp": 7,
        "r8": 8,
        "r11": 11,
        "r12": 12,
    }
    state = FrameState(stack_copy(0, CODE, r13=13, r14=14, r15=15, **registers))
    state.enter_caller(row())
    expected = [None, None, None, 4, None, None, 7, STACK + 16, *[None] * 4, 12, 13, 14, 15, CODE]
    assert state.registers == expected


def test_signal_frame_keeps_all_registers() -> None:
    state = FrameState(stack_copy(0, CODE, rax=1, r8=8))
    state.enter_caller(row(is_signal_frame=True))
    assert (state.registers[RAX], state.registers[8], state.is_exact) == (1, 8, True)


def test_cfa_by_register_and_by_expression() -> None:
    for cfa in (
        CfaRule(RBP, 16),
        CfaRule(0, 0, bytes([0x70 + RBP, 16])),
        CfaRule(0, 0, bytes([0x77, 0, 0x06])),
    ):
        state = FrameState(stack_copy(STACK + 16, CODE, 0, rbp=STACK))
        assert state.enter_caller(row(cfa)) is None
        assert state.rsp == STACK + 16


def test_return_address_in_a_register() -> None:
    state = FrameState(stack_copy(r12=CODE))
    assert state.enter_caller(row(rip=Rule(RuleKind.REGISTER, 12))) is None
    assert state.rip == CODE


def test_return_address_in_another_column() -> None:
    state = FrameState(stack_copy(CODE, 0))
    rules = ((3, Rule(RuleKind.OFFSET, -16)),)
    assert state.enter_caller(Row(CfaRule(RSP, 16), rules, 3, False)) is None
    assert state.rip == CODE


@pytest.mark.parametrize(
    ("found", "end"),
    [
        (row(rip=Rule(RuleKind.UNDEFINED)), WalkEnd.COMPLETE),
        (row(CfaRule(RSP, 24)), WalkEnd.COMPLETE),  # the return address is 0
        (row(CfaRule(RSP, 32)), WalkEnd.STACK_CUT),
        (row(CfaRule(0, 0, bytes([0x77, 64, 0x06]))), WalkEnd.STACK_CUT),
        (row(CfaRule(RSP, -8)), WalkEnd.NO_PROGRESS),
        (row(rsp=Rule(RuleKind.OFFSET, 64), is_signal_frame=True), WalkEnd.STACK_CUT),
        (Row(CfaRule(RSP, 16), (), RIP, False), WalkEnd.UNSUPPORTED),
        (Row(CfaRule(RSP, 16), (), 40, False), WalkEnd.UNSUPPORTED),
    ],
)
def test_reason_to_end(found: Row, end: WalkEnd) -> None:
    assert FrameState(stack_copy(0, CODE, 0)).enter_caller(found) is end


def test_frame_of_no_size_is_progress_in_a_leaf_only() -> None:
    found = row(CfaRule(RSP, 0), rip=Rule(RuleKind.OFFSET, 0))
    state = FrameState(stack_copy(CODE, CODE))
    assert state.enter_caller(found) is None
    assert state.enter_caller(found) is WalkEnd.NO_PROGRESS


@pytest.mark.parametrize(
    "cfa", [None, CfaRule(RAX, 8), CfaRule(40, 8), CfaRule(0, 0, b""), CfaRule(0, 0, b"\x70\0")]
)
def test_row_that_needs_what_is_not_known_is_refused(cfa: CfaRule | None) -> None:
    state = FrameState(stack_copy(0, CODE, 0, 0, rip=CODE))
    state.enter_caller(row())
    with pytest.raises(SymbolizeError):
        state.enter_caller(row(cfa))


def test_register_that_was_not_copied_is_told_from_one_that_is_not_known() -> None:
    state = FrameState(stack_copy(CODE, 0))
    assert state.enter_caller(row(CfaRule(RSP, 8), rbp=Rule(RuleKind.OFFSET, -16))) is None
    assert state.enter_caller(row(CfaRule(RBP, 16))) is WalkEnd.STACK_CUT


def test_red_zone_is_read_when_it_was_copied() -> None:
    state = FrameState(stack_copy(STACK + 64, CODE, red_zone_bytes=8, rbp=1))
    assert state.enter_caller(row(CfaRule(RSP, 8), rbp=Rule(RuleKind.OFFSET, -16))) is None
    assert (state.rip, state.registers[RBP]) == (CODE, STACK + 64)


def test_copy_without_all_registers_is_refused() -> None:
    with pytest.raises(SymbolizeError):
        FrameState(StackCopy((1, 2, 3), b"", ()))
