import pytest
from framewriter import sleb, uleb
from hypothesis import given
from hypothesis import strategies as st

from pyprof.symbolize.arrays import np
from pyprof.symbolize.leb128 import NUMBER_BYTES, NUMBER_LIMIT, signed_numbers, unsigned_numbers


def placed(numbers: list[bytes]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return the numbers in one code, where they start and where they end."""
    limits = np.cumsum([len(number) for number in numbers])
    starts = limits - [len(number) for number in numbers]
    code = np.frombuffer(b"".join(numbers) + bytes(NUMBER_BYTES), np.uint8)
    return code, starts, limits.tolist()


@given(st.lists(st.integers(0, 1 << 35) | st.integers(0, (1 << 64) - 1), min_size=1))
def test_unsigned_numbers_are_read_and_cut(values: list[int]) -> None:
    code, starts, limits = placed([uleb(value) for value in values])
    numbers = unsigned_numbers(code, starts)
    assert numbers.values.tolist() == [min(value, NUMBER_LIMIT) for value in values]
    assert numbers.limits.tolist() == limits


@given(st.lists(st.integers(-(1 << 35), 1 << 35) | st.integers(-(1 << 62), 1 << 62), min_size=1))
def test_signed_numbers_are_read_and_cut(values: list[int]) -> None:
    code, starts, limits = placed([sleb(value) for value in values])
    numbers = signed_numbers(code, starts)
    assert numbers.values.tolist() == [max(min(value, NUMBER_LIMIT), -NUMBER_LIMIT) for value in values]
    assert numbers.limits.tolist() == limits


@pytest.mark.parametrize(
    ("number", "unsigned", "signed"),
    [
        (b"\xe5\x8e\x26", 624485, 624485),
        (b"\x7b", 123, -5),
        (b"\x80\x7f", 16256, -128),
        (b"\x88\x80\x80\x00", 8, 8),
        (b"\xf8" + b"\xff" * 8 + b"\x7f", NUMBER_LIMIT, -8),
        (b"\x88" + b"\x80" * 8 + b"\0", 8, 8),
        (b"\x80" * 12, NUMBER_LIMIT, 0),
    ],
)
def test_a_number_can_be_written_longer_than_needed(number: bytes, unsigned: int, signed: int) -> None:
    code, starts, _ = placed([number])
    assert unsigned_numbers(code, starts).values.tolist() == [unsigned]
    assert signed_numbers(code, starts).values.tolist() == [signed]
