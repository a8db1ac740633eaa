"""What a pprof file says about itself: its value types, and comments for what pprof has no field for.

Each comment is one line, `pyprof: KEY=VALUE`; the value is the rest of the line:

    pyprof: unit=samples                               always there, and the mark of a file by pyprof
    pyprof: mode=cpu                                   event, host, kernel, engine, targets, version: text
    pyprof: frequency_hz=99                            cpus: whole numbers, left out when 0
    pyprof: taken=5940                                 expected, counted, idle, ...: the Quality
    pyprof: lost=12 kept: stack map full               in the stacks, under a [lost: ...] frame
    pyprof: lost=3 dropped: ring buffer full           in no stack
    pyprof: truncated=7 page not resident              user stacks that end early; complete ones are not told
    pyprof: note=The command exited with status 1.

`lost`, `truncated` and `note` repeat. Of another key that repeats (a merged file) the first counts. Other
lines, other keys and numbers that are not are ignored. Start, duration and period are pprof's own fields.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from pyprof.profiler.profile import Loss, Profile, Provenance, Quality, Truncation

_TEXTS = ("mode", "event", "host", "kernel", "engine", "unwind", "targets", "version")
_NUMBERS = ("frequency_hz", "cpus")
_QUALITY = ("expected", "taken", "counted", "idle", "excluded", "user_stacks", "verified", "agreed")

_LINE = re.compile(r"pyprof: ([a-z_]+)=(.*)")
_NUMBER = re.compile(r"[0-9]{1,30}")
_LOST = re.compile(r"([0-9]{1,30}) (kept|dropped): (.*)")

_TRUNCATED = re.compile(r"([0-9]{1,30}) (.*)")

_TIME_EVENTS = frozenset({"cpu-clock", "task-clock", "cpu"})  # a period is in nanoseconds of CPU time
_TIME_UNITS = frozenset({"nanoseconds", "microseconds", "milliseconds", "seconds"})


class ValueType(NamedTuple):
    """What a number counts, in pprof's words."""

    type: str  # "cpu"
    unit: str  # "nanoseconds"


CPU_TIME = ValueType("cpu", "nanoseconds")


@dataclass(slots=True)
class Header:
    """What the comments of a file say; `unit` is None when pyprof did not write it."""

    unit: str | None = None
    texts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)
    truncated: list[Truncation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def provenance(self, event: str, period: int, started_unix_ns: int, duration_ns: int) -> Provenance:
        """Return the Provenance; `event` is for a file that names none."""
        texts = {key: text for key, text in self.texts.items() if key != "event"}
        return Provenance(
            **texts,
            event=self.texts.get("event", event),
            period=period,
            started_unix_ns=started_unix_ns,
            duration_ns=duration_ns,
            frequency_hz=self.numbers.get("frequency_hz", 0),
            cpus=self.numbers.get("cpus", 0),
            notes=tuple(self.notes),
        )

    def quality(self) -> Quality:
        """Return the Quality."""
        numbers = {key: self.numbers[key] for key in _QUALITY if key in self.numbers}
        return Quality(**numbers, losses=tuple(self.losses), truncated=tuple(self.truncated))


def value_type(unit: str, mode: str) -> ValueType:
    """Return the type of a profile's values: samples/count, offcpu/microseconds, cycles/count."""
    if unit in _TIME_UNITS:
        return ValueType(mode or "time", unit)
    if unit == "bytes":
        return ValueType("space", unit)
    return ValueType(unit, "count")


def unit_of(value: ValueType) -> str:
    """Return the unit of a profile whose values have that type: "samples", "nanoseconds", "cycles"."""
    return value.type if value.unit in ("", "count") else value.unit


def period_type(event: str) -> ValueType | None:
    """Return what the period of an event counts, None without an event."""
    if event in _TIME_EVENTS:
        return CPU_TIME
    return ValueType(event, "count") if event else None


def sample_time_ns(profile: Profile) -> int:
    """Return the CPU time that one sample stands for, 0 when values are not such samples."""
    provenance = profile.provenance
    is_time = profile.unit == "samples" and provenance.event in _TIME_EVENTS
    return max(provenance.period, 0) if is_time else 0


def header_lines(profile: Profile) -> list[str]:
    """Return the comments for a profile, in a fixed order; their text is not made printable here."""
    provenance, quality = profile.provenance, profile.quality
    pairs: list[tuple[str, str]] = [("unit", profile.unit)]
    pairs += [(key, getattr(provenance, key)) for key in _TEXTS if getattr(provenance, key)]
    for source, keys in ((provenance, _NUMBERS), (quality, _QUALITY)):
        pairs += [(key, str(getattr(source, key))) for key in keys if getattr(source, key) > 0]
    for loss in quality.losses:
        if loss.value > 0:
            pairs.append(("lost", f"{loss.value} {'kept' if loss.kept else 'dropped'}: {loss.reason}"))
    pairs += [("truncated", f"{value} {reason}") for reason, value in quality.truncated]
    pairs += [("note", note) for note in provenance.notes]
    return [f"pyprof: {key}={value}" for key, value in pairs]


def parsed_header(lines: Iterable[str]) -> Header:
    """Return what comments of any origin say."""
    header = Header()
    for line in lines:
        if match := _LINE.fullmatch(line):
            _take(header, match[1], match[2])
    return header


def _take(header: Header, key: str, value: str) -> None:
    if key == "unit" and header.unit is None:
        header.unit = value
    elif key in _TEXTS:
        header.texts.setdefault(key, value)
    elif key in _NUMBERS + _QUALITY and _NUMBER.fullmatch(value):
        header.numbers.setdefault(key, int(value))
    elif key == "lost" and (match := _LOST.fullmatch(value)):
        header.losses.append(Loss(reason=match[3], value=int(match[1]), kept=match[2] == "kept"))
    elif key == "truncated" and (match := _TRUNCATED.fullmatch(value)):
        header.truncated.append(Truncation(match[2], int(match[1])))
    elif key == "note":
        header.notes.append(value)
