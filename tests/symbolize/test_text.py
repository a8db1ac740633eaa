import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyprof.symbolize.text import ELLIPSIS, NAME_LIMIT, printable

HOSTILE = [
    *range(0x20), 0x7F, *range(0x80, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F),
    *range(0x2066, 0x206A), 0x2028, 0x2029, 0xD800, 0xDC80, 0xDFFF, 0xFEFF, 0xFFFE, 0xFFFF,
]  # fmt: skip
ANY_TEXT = st.text(st.characters(exclude_categories=[]) | st.sampled_from([chr(code) for code in HOSTILE]))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("std::vector<int>", "std::vector<int>"),
        ("größe 函数 😀", "größe 函数 😀"),
        ("a;b 9\nevil", r"a;b 9\x0aevil"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("abc\u202efdp", r"abc\u202efdp"),
        ("\x9b31m", r"\x9b31m"),
        ("\ud800", r"\ud800"),
        (b"caf\xc3\xa9", "café"),
        (b"\xff\xfe", r"\xff\xfe"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),
        ("", ""),
    ],
)
def test_printable_spells_out_only_what_is_not_plain(text: str | bytes, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("code", HOSTILE)
def test_no_hostile_character_stays(code: int) -> None:
    assert printable(f"a{chr(code)}b").isprintable()


@given(ANY_TEXT)
def test_printable_is_idempotent_and_encodable(text: str) -> None:
    shown = printable(text)
    assert printable(shown) == shown
    assert not set(shown) & {chr(code) for code in HOSTILE}
    shown.encode("utf-8")


@given(st.binary())
def test_bytes_and_their_decoded_form_look_the_same(data: bytes) -> None:
    assert printable(data) == printable(os.fsdecode(data))


@given(ANY_TEXT, st.integers(1, 20))
def test_printable_is_never_longer_than_the_limit(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert printable(shown, limit) == shown


def test_a_long_name_ends_in_an_ellipsis() -> None:
    assert printable("x" * 5000) == "x" * (NAME_LIMIT - 1) + ELLIPSIS
    assert printable(b"x" * 5000) == "x" * (NAME_LIMIT - 1) + ELLIPSIS
    assert printable("\x1b" * 5000).endswith(ELLIPSIS)
    assert printable("x" * NAME_LIMIT) == "x" * NAME_LIMIT
