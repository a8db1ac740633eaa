import pytest
from framewriter import (
    AT_ENTRY,
    GAP,
    NOP,
    REMEMBER,
    RESTORE_STATE,
    UNSUPPORTED,
    USUAL,
    Cie,
    Fde,
    advance,
    def_cfa,
    def_cfa_expression,
    def_cfa_offset,
    def_cfa_register,
    expression,
    offset,
    rbx_after,
    restore,
    rule_after,
    rules_after,
    rules_of,
    saved,
    sleb,
    table_of,
    uleb,
)

from pyprof.symbolize.unwind_rule import RBX_SAME, RBX_UNKNOWN, Cfa, Rbp, Rule

BOTTOM = Rule(Cfa.BOTTOM)
KERNEL_FRAME = (
    def_cfa_expression(bytes.fromhex("77a00106"))
    + expression(6, b"\x77" + sleb(120))
    + expression(7, b"\x77" + sleb(160))
    + expression(16, b"\x77" + sleb(168))
)
SIGNAL_CIE = Cie(b"", b"zRS")


@pytest.mark.parametrize(
    ("program", "rule"),
    [
        (NOP, AT_ENTRY),
        (def_cfa_offset(16), Rule(Cfa.RSP, offset=16)),
        (def_cfa_offset(1 << 20), Rule(Cfa.RSP, offset=1 << 20)),
        (def_cfa_offset((1 << 29) - 8), Rule(Cfa.RSP, offset=(1 << 29) - 8)),
        (def_cfa_offset(1 << 29), UNSUPPORTED),
        (def_cfa_offset(1 << 31), UNSUPPORTED),
        (b"\x13" + sleb(-3), Rule(Cfa.RSP, offset=24)),
        (b"\x13" + sleb(3), Rule(Cfa.RSP, offset=-24)),
        (def_cfa(6, 16), Rule(Cfa.RBP, offset=16)),
        (b"\x12\x06" + sleb(-2), Rule(Cfa.RBP, offset=16)),
        (def_cfa(10, 0), Rule(Cfa.REGISTER, reg=10)),
        (def_cfa(0, 8), Rule(Cfa.REGISTER, offset=8)),
        (def_cfa(15, 8), Rule(Cfa.REGISTER, reg=15, offset=8)),
        (def_cfa(16, 8), UNSUPPORTED),
        (def_cfa(300, 8), UNSUPPORTED),
        (def_cfa_register(6), Rule(Cfa.RBP, offset=8)),
        (def_cfa_expression(bytes.fromhex("7708 8000 3f1a3b2a332422")), Rule(Cfa.PLT, offset=11)),
        (def_cfa_expression(bytes.fromhex("767806")), Rule(Cfa.RBP_DEREF, offset=-8)),
        (def_cfa_expression(bytes.fromhex("770006 2308")), Rule(Cfa.RSP_DEREF, deref=8)),
        (def_cfa_expression(b"\x96"), UNSUPPORTED),
        (def_cfa_expression(b""), UNSUPPORTED),
        (def_cfa_expression(b"\x96" * 300) + def_cfa(7, 16), Rule(Cfa.RSP, offset=16)),
        (def_cfa_expression(bytes.fromhex("767806")) + def_cfa_offset(9), Rule(Cfa.RBP_DEREF, offset=-8)),
        (def_cfa_expression(bytes.fromhex("767806")) + def_cfa_register(6), Rule(Cfa.RBP, offset=8)),
    ],
)
def test_the_cfa(program: bytes, rule: Rule) -> None:
    assert rule_after(program) == rule


@pytest.mark.parametrize(
    ("program", "rule"),
    [
        (offset(6, 2), saved(Rbp.AT_CFA, -16)),
        (b"\x05\x06" + uleb(3), saved(Rbp.AT_CFA, -24)),
        (b"\x11\x06" + sleb(-1), saved(Rbp.AT_CFA, 8)),
        (offset(6, 4096), saved(Rbp.AT_CFA, -32768)),
        (offset(6, 4097), saved(Rbp.UNSUPPORTED)),
        (offset(6, 1 << 63), saved(Rbp.UNSUPPORTED)),
        (b"\x11\x06" + sleb(-4095), saved(Rbp.AT_CFA, 32760)),
        (b"\x11\x06" + sleb(-4096), saved(Rbp.UNSUPPORTED)),
        (expression(6, b"\x76" + sleb(-12)), saved(Rbp.UNSUPPORTED)),
        (offset(6, 2) + b"\x07\x06", saved(Rbp.UNDEFINED)),
        (offset(6, 2) + b"\x08\x06", saved(Rbp.SAME)),
        (offset(6, 2) + restore(6), saved(Rbp.SAME)),
        (offset(6, 2) + b"\x06\x06", saved(Rbp.SAME)),
        (b"\x09\x06\x0c", saved(Rbp.UNSUPPORTED)),
        (b"\x14\x06\x02", saved(Rbp.UNSUPPORTED)),
        (b"\x15\x06\x7e", saved(Rbp.UNSUPPORTED)),
        (expression(6, b"\x76\x00"), saved(Rbp.AT_RBP)),
        (expression(6, b"\x76" + sleb(-16)), saved(Rbp.AT_RBP, -16)),
        (expression(6, b"\x76" + sleb(1 << 15)), saved(Rbp.UNSUPPORTED)),
        (expression(6, b"\x77\x08"), saved(Rbp.UNSUPPORTED)),
        (expression(6, b"\x76\x00\x06"), saved(Rbp.UNSUPPORTED)),
        (b"\x16\x06\x02\x76\x00", saved(Rbp.UNSUPPORTED)),
        (b"\x16\x06\x02\x76\x00" + offset(6, 2), saved(Rbp.AT_CFA, -16)),
        (offset(6, 2) + offset(3, 3) + b"\x07\x03\x05\x0c\x04" + restore(3), saved(Rbp.AT_CFA, -16)),
    ],
)
def test_where_rbp_is_saved(program: bytes, rule: Rule) -> None:
    assert rule_after(program) == rule


@pytest.mark.parametrize(
    ("program", "rbx"),
    [
        (NOP, RBX_SAME),
        (offset(3, 2), -16),
        (b"\x05\x03" + uleb(7), -56),
        (b"\x11\x03" + sleb(-1), 8),
        (offset(3, 0), RBX_UNKNOWN),
        (offset(3, 1), RBX_UNKNOWN),  # there is the return address
        (offset(3, 4096), -32768),
        (offset(3, 4097), RBX_UNKNOWN),
        (b"\x11\x03" + sleb(-4095), 32760),
        (b"\x11\x03" + sleb(-4096), RBX_UNKNOWN),
        (offset(3, 1 << 63), RBX_UNKNOWN),
        (offset(3, 2) + b"\x07\x03", RBX_UNKNOWN),
        (offset(3, 2) + b"\x08\x03", RBX_SAME),
        (offset(3, 2) + restore(3), RBX_SAME),
        (offset(3, 2) + b"\x06\x03", RBX_SAME),
        (REMEMBER + offset(3, 2) + RESTORE_STATE, RBX_SAME),
        (b"\x09\x03\x0c", RBX_UNKNOWN),
        (b"\x14\x03\x02", RBX_UNKNOWN),
        (b"\x15\x03\x7e", RBX_UNKNOWN),
        (expression(3, b"\x76\x00"), RBX_UNKNOWN),
        (b"\x16\x03\x02\x76\x00", RBX_UNKNOWN),
        (offset(6, 2) + offset(3, 3), -24),
    ],
)
def test_where_rbx_is_saved_in_a_file_with_a_cfa_in_rbx(program: bytes, rbx: int) -> None:
    assert rbx_after(program) == rbx
    assert rule_after(program).rbx == RBX_UNKNOWN


def test_a_saved_rbx_is_at_a_multiple_of_8() -> None:
    cie = Cie(def_cfa(7, 8) + b"\x05\x10\x02", data_alignment=-4)
    assert rbx_after(offset(3, 4), cie=cie) == -16
    assert rbx_after(offset(3, 5), cie=cie) == RBX_UNKNOWN


def test_restore_of_rbx_goes_back_to_what_the_cie_says() -> None:
    assert rbx_after(offset(3, 3), cie=Cie(USUAL + offset(3, 2))) == -24
    assert rbx_after(offset(3, 3) + restore(3), cie=Cie(USUAL + offset(3, 2))) == -16
    assert rbx_after(offset(3, 3) + restore(3), cie=Cie(USUAL + b"\x07\x03")) == RBX_UNKNOWN


@pytest.mark.parametrize("program", [b"\x07\x10", b"\x3e", offset(16, 2), def_cfa_expression(b"\x96")])
def test_a_frame_without_a_known_caller_tells_nothing_of_rbx(program: bytes) -> None:
    assert rbx_after(offset(3, 2) + program) == RBX_UNKNOWN


def test_every_rule_of_a_file_with_a_cfa_in_rbx_tells_where_rbx_is() -> None:
    frame = offset(6, 2) + offset(3, 3) + advance(4) + def_cfa_register(3)
    expected = {
        0: AT_ENTRY._replace(rbx=RBX_SAME),
        8: Rule(Cfa.RSP, Rbp.AT_CFA, 0, -16, 8, 0, -24),
        12: Rule(Cfa.REGISTER, Rbp.AT_CFA, 3, -16, 8, 0, -24),
        16: Rule(Cfa.RBP_DEREF, Rbp.SAME, 0, 0, -8, 0, RBX_SAME),
        24: BOTTOM,
        32: GAP,
    }
    realigned = def_cfa_expression(bytes.fromhex("767806"))
    records = [Fde(0, 8), Fde(8, 8, frame), Fde(16, 8, realigned), Fde(24, 8, b"\x07\x10" + offset(3, 2))]
    assert rules_of(table_of(Cie(), *records)) == expected


@pytest.mark.parametrize(
    "other", [def_cfa(10, 8), def_cfa(3, 8) + b"\x07\x10", def_cfa(3, 8) + def_cfa(7, 8)]
)
def test_a_file_without_a_rule_with_a_cfa_in_rbx_tells_nothing_of_rbx(other: bytes) -> None:
    table = table_of(Cie(), Fde(0, 8, offset(3, 2) + advance(4) + restore(3)), Fde(8, 8, other))
    assert {rule.rbx for rule in rules_of(table).values()} == {RBX_UNKNOWN}
    assert rules_of(table)[0] == AT_ENTRY
    assert 4 not in rules_of(table)


@pytest.mark.parametrize(
    ("program", "rule"),
    [
        (b"\x07\x10", BOTTOM),
        (b"\x08\x10", UNSUPPORTED),
        (b"\x09\x10\x01", UNSUPPORTED),
        (offset(16, 2), UNSUPPORTED),
        (offset(16, 2) + restore(16), AT_ENTRY),
        (expression(16, b"\x77\x08"), UNSUPPORTED),
        (offset(7, 2), UNSUPPORTED),
        (b"\x14\x07\x00", UNSUPPORTED),
        (offset(7, 2) + restore(7), AT_ENTRY),
    ],
)
def test_the_return_address_is_below_the_cfa_and_rsp_is_the_cfa(program: bytes, rule: Rule) -> None:
    assert rule_after(program) == rule


@pytest.mark.parametrize(
    "instruction", [b"\x2e\x10", b"\x2e" + uleb(1 << 40), b"\x05\x0c\x04", b"\x16\x03\x01\x96"]
)
def test_instructions_about_other_things_are_skipped(instruction: bytes) -> None:
    assert rules_after(instruction, instruction + def_cfa_offset(16)) == [AT_ENTRY, Rule(Cfa.RSP, offset=16)]


@pytest.mark.parametrize(
    "instruction",
    [
        b"\x01" + bytes(8),
        b"\x17",
        b"\x2d",
        b"\x2f\x06\x02",
        b"\x3e",
        b"\x3f",
        RESTORE_STATE,
        b"\x1d" + bytes(8),
    ],
)
def test_what_is_not_known_is_unsupported_to_the_end(instruction: bytes) -> None:
    after = rules_after(def_cfa_offset(16), instruction, def_cfa_offset(24))
    assert after == [Rule(Cfa.RSP, offset=16), UNSUPPORTED, UNSUPPORTED]


@pytest.mark.parametrize(
    "cut", [b"\x0e", b"\x0c\x07", b"\x04\0\0", b"\x0e\x80\x80", b"\x0f\x7f\x77", b"\x86\x80"]
)
def test_an_instruction_that_goes_on_after_the_record_is_unsupported(cut: bytes) -> None:
    program = advance(8) + def_cfa_offset(16) + advance(8)
    program += NOP * (-(17 + len(program) + len(cut)) % 4) + cut  # the record has no padding after it
    rules = rules_of(table_of(Cie(), Fde(0, 0x20, program), Fde(0x20, 8)))
    assert rules == {0: AT_ENTRY, 8: Rule(Cfa.RSP, offset=16), 16: UNSUPPORTED, 0x20: AT_ENTRY, 0x28: GAP}


@pytest.mark.parametrize(
    ("distance", "instruction"),
    [
        (1, advance(1)),
        (63, advance(63)),
        (200, b"\x02\xc8"),
        (999, b"\x03\xe7\x03"),
        (3000, b"\x04\xb8\x0b\0\0"),
    ],
)
def test_rows_start_where_the_program_has_advanced_to(distance: int, instruction: bytes) -> None:
    program = instruction + def_cfa_offset(16)
    rules = rules_of(table_of(Cie(), Fde(16, distance + 5, program)))
    assert rules == {16: AT_ENTRY, 16 + distance: Rule(Cfa.RSP, offset=16), 16 + distance + 5: GAP}


def test_an_advance_is_in_units_of_the_code_alignment() -> None:
    rules = rules_of(table_of(Cie(code_alignment=4), Fde(0, 64, advance(3) + def_cfa_offset(16))))
    assert rules == {0: AT_ENTRY, 12: Rule(Cfa.RSP, offset=16), 64: GAP}


def test_an_offset_is_in_units_of_the_data_alignment() -> None:
    cie = Cie(def_cfa(7, 8) + b"\x05\x10\x02", data_alignment=-4)
    assert rule_after(offset(6, 4), cie=cie) == saved(Rbp.AT_CFA, -16)


def test_a_row_after_the_end_of_the_code_is_none() -> None:
    assert rules_of(table_of(Cie(), Fde(0, 8, advance(8) + def_cfa_offset(16)))) == {0: AT_ENTRY, 8: GAP}


def test_an_advance_by_nothing_starts_no_row() -> None:
    program = def_cfa_offset(16) + advance(0) + def_cfa_offset(24)
    assert rules_of(table_of(Cie(), Fde(0, 8, program))) == {0: Rule(Cfa.RSP, offset=24), 8: GAP}


def test_restore_state_goes_back_to_its_remember_state() -> None:
    inner = def_cfa_offset(24) + offset(6, 2)
    assert rules_after(
        REMEMBER + def_cfa_offset(16),
        REMEMBER + inner,
        RESTORE_STATE,
        REMEMBER + b"\x07\x10",
        RESTORE_STATE + offset(6, 3),
        RESTORE_STATE,
    ) == [
        Rule(Cfa.RSP, offset=16),
        Rule(Cfa.RSP, Rbp.AT_CFA, 0, -16, 24),
        Rule(Cfa.RSP, offset=16),
        BOTTOM,
        Rule(Cfa.RSP, Rbp.AT_CFA, 0, -24, 16),
        AT_ENTRY,
    ]


def test_states_are_remembered_to_any_depth_and_any_number_of_times() -> None:
    down = [REMEMBER + def_cfa_offset(8 * (depth + 2)) for depth in range(40)]
    up = [RESTORE_STATE] * 40
    offsets = [8 * (depth + 2) for depth in range(40)]
    expected = offsets + offsets[-2::-1] + [8]
    assert [rule.offset for rule in rules_after(*down, *up)] == expected
    again = [REMEMBER + def_cfa_offset(16), RESTORE_STATE] * 100
    assert [rule.offset for rule in rules_after(*again)] == [16, 8] * 100


def test_a_state_that_another_function_remembers_is_not_restored() -> None:
    records = [Cie(), Fde(0, 8, REMEMBER + REMEMBER), Fde(8, 8, advance(4) + RESTORE_STATE), Fde(16, 8, NOP)]
    assert rules_of(table_of(*records)) == {0: AT_ENTRY, 12: UNSUPPORTED, 16: AT_ENTRY, 24: GAP}


def test_restore_goes_back_to_what_the_cie_says() -> None:
    cie = Cie(USUAL + offset(6, 2))
    assert rules_after(offset(6, 3), restore(6), b"\x08\x06", b"\x06\x06", cie=cie) == [
        saved(Rbp.AT_CFA, -24),
        saved(Rbp.AT_CFA, -16),
        saved(Rbp.SAME),
        saved(Rbp.AT_CFA, -16),
    ]


@pytest.mark.parametrize(
    "program", [b"", def_cfa(7, 8), offset(16, 1), USUAL + advance(1), USUAL + REMEMBER, USUAL + b"\x3e"]
)
def test_a_cie_without_the_usual_rules_makes_its_functions_unsupported(program: bytes) -> None:
    assert rule_after(NOP, cie=Cie(program)) == UNSUPPORTED


def test_one_expression_written_in_two_ways_is_one_rule() -> None:
    blocks = [bytes.fromhex(text) for text in ("76780623 08", "76f87f0623 08", "767806 38 22")]
    table = table_of(Cie(), *(Fde(8 * n, 8, def_cfa_expression(block)) for n, block in enumerate(blocks)))
    assert rules_of(table) == {0: Rule(Cfa.RBP_DEREF, offset=-8, deref=8), 24: GAP}
    assert len(table.rules) == 32


def test_each_function_starts_with_the_rules_of_its_own_cie() -> None:
    records = [
        Cie(),
        Fde(0, 8),
        Cie(def_cfa(6, 16) + offset(16, 1)),
        Fde(8, 8),
        Cie(USUAL + b"\x07\x10"),
        Fde(16, 8),
    ]
    assert rules_of(table_of(*records)) == {0: AT_ENTRY, 8: Rule(Cfa.RBP, offset=16), 16: BOTTOM, 24: GAP}


def test_the_kernels_signal_frame() -> None:
    assert rule_after(KERNEL_FRAME, cie=SIGNAL_CIE) == Rule(Cfa.SIGNAL)


@pytest.mark.parametrize(
    "change",
    [
        def_cfa_expression(bytes.fromhex("77a80106")),
        def_cfa(7, 8),
        expression(6, b"\x77" + sleb(128)),
        expression(7, b"\x77" + sleb(168)),
        expression(16, b"\x76" + sleb(168)),
        offset(16, 1),
        USUAL,
        b"\x08\x06",
    ],
)
def test_another_signal_frame_is_unsupported(change: bytes) -> None:
    assert rule_after(KERNEL_FRAME + change, cie=SIGNAL_CIE) == UNSUPPORTED


def test_a_signal_frame_without_the_mark_of_one_is_unsupported() -> None:
    assert rule_after(KERNEL_FRAME, cie=Cie(b"")) == UNSUPPORTED


def test_a_program_longer_than_any_real_one_is_unsupported() -> None:
    records = [
        Cie(),
        Fde(0, 8, NOP * 70_000),
        Fde(8, 8, advance(4) + def_cfa_offset(16)),
        Fde(16, 8, NOP * 60_000),
    ]
    expected = {0: UNSUPPORTED, 8: AT_ENTRY, 12: Rule(Cfa.RSP, offset=16), 16: AT_ENTRY, 24: GAP}
    assert rules_of(table_of(*records)) == expected


def test_programs_of_more_than_one_slice_stay_apart() -> None:
    programs = [advance(1) + def_cfa_offset(8 * (index + 2)) + NOP * 3000 for index in range(300)]
    records = [Cie(), *(Fde(4 * index, 4, program) for index, program in enumerate(programs))]
    rules = rules_of(table_of(*records))
    for index in range(300):
        assert rules[4 * index] == AT_ENTRY
        assert rules[4 * index + 1] == Rule(Cfa.RSP, offset=8 * (index + 2))


def test_each_instruction_of_long_programs_is_found() -> None:
    padding = (NOP, b"\x2e\x80\x01", def_cfa_expression(b"\x96" * 9) + def_cfa(7, 8), b"\x04\0\0\0\0")
    programs = [part * (50_000 // len(part)) + advance(1) + def_cfa_offset(16) for part in padding]
    records = [Cie(), *(Fde(4 * index, 4, program) for index, program in enumerate(programs)), Fde(16, 8)]
    rules = rules_of(table_of(*records))
    pushed = Rule(Cfa.RSP, offset=16)
    assert rules == {n: pushed if n % 4 else AT_ENTRY for n in (0, 1, 4, 5, 8, 9, 12, 13, 16)} | {24: GAP}


def test_equal_rules_of_neighbours_are_one_row() -> None:
    records = [Cie(), Fde(0, 8, advance(4) + def_cfa_offset(8)), Fde(8, 8)]
    assert rules_of(table_of(*records)) == {0: AT_ENTRY, 16: GAP}
    assert table_of(*records).rows.count(b"\xff\xff\xff\xff") == 1023
