"""The comments of a pprof file."""

import pytest

from pyprof.profiler.profile import Loss, Profile, Provenance, Quality, Truncation
from pyprof.render.pprof_header import ValueType, header_lines, parsed_header, unit_of, value_type

PROFILE = Profile(
    unit="samples",
    samples=(),
    frames=(),
    provenance=Provenance(
        mode="cpu", event="cpu-clock", cpus=4, host="web=3", notes=("Fell back to bcc.", "")
    ),
    quality=Quality(taken=20, counted=17, losses=(Loss("stack: map full", 2, True), Loss("ring", 3, False))),
)

LINES = """\
pyprof: unit=samples
pyprof: mode=cpu
pyprof: event=cpu-clock
pyprof: host=web=3
pyprof: cpus=4
pyprof: taken=20
pyprof: counted=17
pyprof: lost=2 kept: stack: map full
pyprof: lost=3 dropped: ring
pyprof: note=Fell back to bcc.
pyprof: note=
""".splitlines()


def test_header_is_lines_that_people_can_read() -> None:
    assert header_lines(PROFILE) == LINES


def test_header_is_read_back() -> None:
    header = parsed_header(LINES)
    assert header.unit == "samples"
    assert header.provenance("other", 0, 0, 0) == PROFILE.provenance
    assert header.quality() == PROFILE.quality


@pytest.mark.parametrize(
    "line",
    [
        "",
        "built with -race",
        "pyprof:unit=bytes",
        " pyprof: unit=bytes",
        "pyprof: colour=red",
        "pyprof: cpus=four",
        "pyprof: cpus=-4",
        "pyprof: cpus=٤",
        "pyprof: cpus=" + "9" * 5000,
        "pyprof: lost=many kept: x",
        "pyprof: lost=3 found: x",
        "pyprof: unit",
    ],
)
def test_other_lines_are_ignored(line: str) -> None:
    assert parsed_header([line]) == parsed_header([])


def test_first_of_repeated_keys_counts() -> None:
    header = parsed_header(["pyprof: host=a", "pyprof: host=b", "pyprof: cpus=1", "pyprof: cpus=2"])
    assert (header.texts, header.numbers) == ({"host": "a"}, {"cpus": 1})


def test_file_without_event_takes_the_one_of_its_period() -> None:
    assert parsed_header([]).provenance("cpu", 1, 2, 3) == Provenance(
        event="cpu", period=1, started_unix_ns=2, duration_ns=3
    )


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("samples", ValueType("samples", "count")),
        ("microseconds", ValueType("offcpu", "microseconds")),
        ("bytes", ValueType("space", "bytes")),
        ("cache-misses", ValueType("cache-misses", "count")),
    ],
)
def test_unit_is_a_value_type_and_back(unit: str, expected: ValueType) -> None:
    assert value_type(unit, "offcpu") == expected
    assert unit_of(expected) == unit


def test_how_whole_the_stacks_are_is_read_back() -> None:
    truncated = (
        Truncation("deeper than 127", 5),
        Truncation("", 1),
        Truncation("lost: stack map full", 10**29),
    )
    quality = Quality(taken=9, user_stacks=8, truncated=truncated, verified=4, agreed=3)
    profile = Profile(
        unit="samples", samples=(), frames=(), quality=quality, provenance=Provenance(unwind="dwarf")
    )
    lines = header_lines(profile)
    assert [line for line in lines if "truncated" in line] == [
        "pyprof: truncated=5 deeper than 127",
        "pyprof: truncated=1 ",
        f"pyprof: truncated={10**29} lost: stack map full",
    ]
    header = parsed_header(lines)
    assert header.quality() == quality
    assert header.provenance("", 0, 0, 0) == profile.provenance


@pytest.mark.parametrize(
    "text", ["many page not resident", "-1 page not resident", "7", "", "٤ x", "9" * 31 + " x"]
)
def test_truncation_that_is_none_is_ignored(text: str) -> None:
    assert parsed_header([f"pyprof: truncated={text}"]) == parsed_header([])
