import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyprof.symbolize import wire

GOOD = {"symbols": ["_Z1fv", "main"], "picks": [0, 1, -1], "build_id": "8f", "failure": "", "more": False}


def _payload(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def test_a_report_survives_the_pipe() -> None:
    report = wire.Report(("größe", 'a"\\b'), (1, 0, -1), "8f", "", True)
    frame = wire.report_frame(report)
    assert wire.HEADER.unpack(frame[:4]) == (len(frame) - 4,)
    assert wire.parsed_report(frame[4:], 3) == report


def test_readable_names_survive_the_pipe() -> None:
    assert wire.parsed_readable(wire.readable_frame(["f", "main"])[4:], 2) == ("f", "main")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b"9" * 10_000,
        b"NaN",
        _payload(symbols=None),
        _payload(symbols=[1]),
        _payload(picks=[0, 1]),
        _payload(picks=[0, 1, 2]),
        _payload(picks=[0, 1, -2]),
        _payload(picks=[0, 1, True]),
        _payload(picks=[0, 1, 0.0]),
        _payload(build_id=7),
        _payload(build_id="../x"),
        _payload(build_id="a" * 200),
        _payload(failure=None),
    ],
)
def test_what_is_not_a_report_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any of them)
        wire.parsed_report(payload, 3)


def test_a_wrong_number_of_readable_names_is_refused() -> None:
    with pytest.raises(ValueError, match="readable"):
        wire.parsed_readable(b'{"readable": ["f"]}', 2)


def test_names_and_reasons_are_made_printable() -> None:
    report = wire.parsed_report(_payload(symbols=["\x1b[2J", "x" * 9000], failure="\n" * 300), 3)
    assert report.symbols[0] == r"\x1b[2J"
    assert len(report.symbols[1]) == 4096
    assert report.failure.isprintable()
    assert len(report.failure) == 200


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any of them)
        wire.parsed_report(noise, 1)


@given(st.lists(st.text(max_size=50), max_size=5))
def test_an_honest_frame_is_within_its_limit(names: list[str]) -> None:
    shown = tuple(wire.printable(name) for name in names)
    report = wire.Report(shown, tuple(range(len(shown))), "8f" * 20, "", True)
    assert len(wire.report_frame(report)) - 4 <= wire.frame_limit(len(shown))
