import pytest

from pyprof.symbolize.frame_expression import CfaExpression, Slot, cfa_expression, slot_expression
from pyprof.symbolize.unwind_rule import Cfa


@pytest.mark.parametrize(
    ("block", "expression"),
    [
        ("77 08 80 00 3f 1a 3b 2a 33 24 22", CfaExpression(Cfa.PLT, 11, 0)),
        ("77 08 80 00 3f 1a 3a 2a 33 24 22", CfaExpression(Cfa.PLT, 10, 0)),
        ("77 a0 01 06", CfaExpression(Cfa.RSP_DEREF, 160, 0)),
        ("76 78 06", CfaExpression(Cfa.RBP_DEREF, -8, 0)),
        ("77 00 06 23 08", CfaExpression(Cfa.RSP_DEREF, 0, 8)),
        ("77 00 06 23 88 02", CfaExpression(Cfa.RSP_DEREF, 0, 264)),
        ("77 80 7f 06 38 22", CfaExpression(Cfa.RSP_DEREF, -128, 8)),
        ("76 00 06 08 f8 22", CfaExpression(Cfa.RBP_DEREF, 0, 248)),
        ("76 00 06 09 f8 22", CfaExpression(Cfa.RBP_DEREF, 0, -8)),
        ("76 00 06 0a 00 01 22", CfaExpression(Cfa.RBP_DEREF, 0, 256)),
        ("76 00 06 0b 00 ff 22", CfaExpression(Cfa.RBP_DEREF, 0, -256)),
        ("76 00 06 10 88 02 22", CfaExpression(Cfa.RBP_DEREF, 0, 264)),
        ("76 00 06 11 78 22", CfaExpression(Cfa.RBP_DEREF, 0, -8)),
    ],
)
def test_common_expressions_are_recognised(block: str, expression: CfaExpression) -> None:
    assert cfa_expression(bytes.fromhex(block)) == expression


@pytest.mark.parametrize(
    "block",
    [
        "",
        "77 08",  # an address, not what is there
        "77 08 80 00 3f 1a 5b 2a 33 24 22",  # not lit0 to lit15
        "77 08 80 00 3f 1a 3b 2a 33 24 22 06",
        "77 a0 01 06 06",
        "75 00 06",  # rdi
        "77 00 06 38",  # nothing is added
        "77 00 06 38 1c",  # minus
        "76 ff ff ff ff 7f 06 96",
        "76 80 80 80 80 10 06",  # 2^32
        "96",
    ],
)
def test_other_expressions_are_not(block: str) -> None:
    assert cfa_expression(bytes.fromhex(block)) is None


def test_a_register_can_be_saved_relative_to_rbp_or_rsp() -> None:
    assert slot_expression(b"\x76\x70") == Slot(True, -16)
    assert slot_expression(b"\x77\xa8\x01") == Slot(False, 168)
    assert slot_expression(b"\x75\0") is None
    assert slot_expression(b"\x76\0\x06") is None
