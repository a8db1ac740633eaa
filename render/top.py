"""Table of the hottest functions: self and total value per frame."""

from collections import defaultdict
from json import dumps
from typing import Literal, NamedTuple

from pyprof.profiler.profile import Profile
from pyprof.render.caption import (
    caption_data,
    count_words,
    loss_words,
    percent,
    provenance_words,
    quality_words,
    stack_words,
)
from pyprof.render.flame import SEVERAL_MODULES
from pyprof.render.stack import PLAIN, DrawnStacks, drawn_stacks
from pyprof.symbolize.frame import FrameKind
from pyprof.symbolize.text import printable

Order = Literal["self", "total"]

DEFAULT_ROWS = 20


class TopRow(NamedTuple):
    """One function. Values are in the profile's unit."""

    name: str
    kind: FrameKind
    module: str  # "" when there is none, SEVERAL_MODULES when functions of equal name are in several
    self_value: int  # of the stacks that end in it
    total_value: int  # of the stacks it is in, each counted once however often the function recurs


def top_rows(profile: Profile, by: Order = "self", limit: int | None = DEFAULT_ROWS) -> list[TopRow]:
    """Return the functions with the largest values, largest first, then by name; None for all.

    Functions are told apart by name and kind. Thread names are no functions and have no row, except
    where a sample has no frame at all: then its thread name has the self value.
    """
    drawn = drawn_stacks(profile, PLAIN)
    self_values, totals = _values(drawn)
    modules = _modules(drawn)
    rows = (
        TopRow(label.name, label.kind, modules[group], self_values.get(group, 0), totals[group])
        for group, label in enumerate(drawn.labels)
        if group in totals and (label.kind is not FrameKind.PROCESS or group in self_values)
    )
    return sorted(rows, key=lambda row: _rank(row, by))[:limit]


def top_text(profile: Profile, by: Order = "self", limit: int | None = DEFAULT_ROWS) -> str:
    """Return the table as plain text for a terminal, with the profile's caption above it."""
    total = profile.total
    rows = [
        (
            f"{row.self_value:,}",
            percent(row.self_value, total),
            f"{row.total_value:,}",
            percent(row.total_value, total),
            _name_words(row),
        )
        for row in top_rows(profile, by, limit)
    ]
    lines = [*_caption_lines(profile), ""]
    table = [("self", "self %", "total", "total %", "function"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    for row in table if rows else ():
        numbers = (text.rjust(width) for text, width in zip(row, widths, strict=False))
        lines.append("  ".join([*numbers, row[4]]))
    return "\n".join(lines).rstrip("\n") + "\n"


def top_json(profile: Profile, by: Order = "self", limit: int | None = DEFAULT_ROWS) -> str:
    """Return the rows and the profile's caption as a JSON document."""
    rows = [
        {
            "name": row.name,
            "kind": row.kind.value,
            "module": row.module,
            "self": row.self_value,
            "total": row.total_value,
        }
        for row in top_rows(profile, by, limit)
    ]
    return dumps(caption_data(profile) | {"by": by, "rows": rows}, indent=1) + "\n"


def _values(drawn: DrawnStacks) -> tuple[dict[int, int], dict[int, int]]:
    """Return self and total value per group of labels."""
    self_values: dict[int, int] = defaultdict(int)
    totals: dict[int, int] = defaultdict(int)
    for stack, value in zip(drawn.stacks, drawn.values, strict=True):
        self_values[drawn.groups[stack[-1]]] += value
        for group in {drawn.groups[label] for label in stack}:
            totals[group] += value
    return dict(self_values), dict(totals)


def _modules(drawn: DrawnStacks) -> dict[int, str]:
    found: dict[int, set[str]] = defaultdict(set)
    for label in set().union(*drawn.stacks):
        found[drawn.groups[label]].add(drawn.labels[label].module)
    return {
        group: modules.pop() if len(modules) == 1 else SEVERAL_MODULES for group, modules in found.items()
    }


def _rank(row: TopRow, by: Order) -> tuple[int, int, str, str]:
    values = (row.self_value, row.total_value) if by == "self" else (row.total_value, row.self_value)
    return -values[0], -values[1], row.name, row.kind.value


def _caption_lines(profile: Profile) -> list[str]:
    mode = profile.provenance.mode
    heading = [count_words(profile.total, profile.unit), *provenance_words(profile.provenance)]
    lines = [
        f"{mode} profile: {', '.join(word for word in heading if word != mode)}".strip(),
        ", ".join(quality_words(profile.quality, profile.unit)),
        *filter(None, [", ".join(stack_words(profile.quality, profile.provenance.unwind))]),
        *(f"LOST: {words}" for words in loss_words(profile.quality)),
        *profile.provenance.notes,
    ]
    return [printable(line) for line in lines]


def _name_words(row: TopRow) -> str:
    module = row.module.strip("[]") or ("kernel" if row.kind is FrameKind.KERNEL else "")
    return printable(f"{row.name} [{module}]" if module else row.name)
