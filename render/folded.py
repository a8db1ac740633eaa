r"""Folded stacks: one line per distinct stack, `comm;root;...;leaf VALUE`.

Escapes in a frame, so that any profile survives the format:

    `;`                                  \x3b
    `#` at the start of a line           \x23
    `_` of a name that ends in `_[k]`    \x5f   (likewise `_[i]` and `_[j]`)
    `\` before x3b, x23, x5f or x5c      \x5c
    control characters, newlines, ...    \xNN or \uNNNN, see pyprof.render.escape

Inverse: replace these four sequences, left to right, by their characters. The other forms stay: they are
printable text for characters that no name may hold. A thread name is the first frame, so a stack without a
thread name is read back with its first frame in that place.

Source: Brendan Gregg, FlameGraph, stackcollapse-*.pl; the annotations are those of stackcollapse-perf.pl.
"""

import re
from collections.abc import Iterator

from pyprof.profiler.profile import Profile, ProfileSample
from pyprof.render.errors import RenderError
from pyprof.render.stack import DELIMITER, PLAIN, StackStyle, drawn_stacks
from pyprof.symbolize.frame import Frame, FrameKind
from pyprof.symbolize.text import printable

ANNOTATIONS = {FrameKind.KERNEL: "_[k]", FrameKind.INLINED: "_[i]", FrameKind.JIT: "_[j]"}

_KINDS = {annotation: kind for kind, annotation in ANNOTATIONS.items()}
_NOTES = ("[lost: ", "[truncated: ", "[no stack]")  # how pyprof's own frames begin
_BACKSLASH = re.compile(r"\\(?=x(?:3b|23|5f|5c))")
_ESCAPED = re.compile(r"\\x(3b|23|5f|5c)")
_MAX_DIGITS = 18  # of a value; more does not fit the 64 bits of other formats
_SHOWN = 60  # characters of a bad line in a message


def folded(profile: Profile, style: StackStyle = PLAIN) -> bytes:
    """Return the profile as folded text in UTF-8, sorted, with a final newline unless it is empty."""
    return "".join(f"{line}\n" for line in folded_lines(profile, style)).encode()


def folded_lines(profile: Profile, style: StackStyle = PLAIN) -> Iterator[str]:
    """Return one line per distinct text of a stack, without newlines, sorted by the stack's text."""
    drawn = drawn_stacks(profile, style)
    texts = [_frame_text(label, style.annotated) for label in drawn.labels]
    values: dict[str, int] = {}
    for stack, value in zip(drawn.stacks, drawn.values, strict=True):
        line = ";".join(map(texts.__getitem__, stack))
        values[line] = values.get(line, 0) + value
    for line in sorted(values):
        escaped = rf"\x23{line[1:]}" if line.startswith("#") else line
        yield f"{escaped} {values[line]}"


def read_folded(data: bytes) -> Profile:
    """Return the profile of a folded text, of pyprof or of any other program.

    The first frame of a line becomes the thread name. Annotations give the frames' kinds, as does a
    single `-` frame, above which all is kernel code. Blank lines and lines that begin with `#` are skipped,
    equal stacks merged; the unit is "samples" because the format does not tell.
    Raises: RenderError, with the number of the line, for a line without a whole number at its end.
    """
    table = _FrameTable()
    values: dict[tuple[str, tuple[int, ...]], int] = {}
    for number, line in enumerate(data.decode("utf-8-sig", "surrogateescape").split("\n"), start=1):
        if line.startswith("#") or not line.strip():
            continue
        text, value = _stack_and_value(line, number)
        comm, *names = text.split(";")
        key = comm, table.stack(names)
        values[key] = values.get(key, 0) + value
    samples = (
        ProfileSample(stack=stack, value=value, comm=_unescaped(comm))
        for (comm, stack), value in values.items()
    )
    return Profile(unit="samples", samples=tuple(samples), frames=tuple(table.frames))


def _frame_text(frame: Frame, annotated: bool) -> str:
    text = _BACKSLASH.sub(r"\\x5c", printable(frame.name)).replace(";", r"\x3b")
    if text.endswith(tuple(_KINDS)):
        text = rf"{text[:-4]}\x5f{text[-3:]}"
    return text + ANNOTATIONS.get(frame.kind, "") if annotated else text


# comm with space;main;std::map<int, long>::find 12
# swapper/0;-;do_idle_[k];native_safe_halt_[k] 3      (nothing below the delimiter)
# 3                                                   (a value without a stack is refused)
def _stack_and_value(line: str, number: int) -> tuple[str, int]:
    text, _, digits = line.rstrip().rpartition(" ")
    if text and digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS:
        return text, int(digits)
    shown = printable(line.strip())
    shown = shown if len(shown) <= _SHOWN else f"...{shown[-_SHOWN:]}"
    raise RenderError(
        f"folded text, line {number}: {_complaint(text, digits)} in '{shown}'; "
        "each line must be 'frame;frame;... VALUE' with a whole number as VALUE"
    )


def _complaint(text: str, digits: str) -> str:
    digits = printable(digits[:_SHOWN])
    if re.fullmatch(r"[0-9]*\.[0-9]+(e-?[0-9]+)?", digits):
        return f"value {digits} is a fraction"
    if digits.isascii() and digits.isdigit():
        return f"value {digits} has more than {_MAX_DIGITS} digits" if text else f"no stack before {digits}"
    return f"'{digits}' after the last space is not a value"


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), printable(text))


class _FrameTable(dict[tuple[str, bool], int]):
    """Frames by (text, stands above a delimiter), numbered as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self._plain = _PlainTexts(self)

    def stack(self, names: list[str]) -> tuple[int, ...]:
        """Return the indices of a line's frames."""
        if names.count(DELIMITER.name) != 1 or "--" in names:
            return tuple(map(self._plain.__getitem__, names))
        limit = names.index(DELIMITER.name)
        return tuple(self[name, level > limit] for level, name in enumerate(names))

    def __missing__(self, key: tuple[str, bool]) -> int:
        self.frames.append(_frame(*key))
        self[key] = len(self.frames) - 1
        return self[key]


class _PlainTexts(dict[str, int]):
    """Frames by text alone: the way for nearly all lines, without a Python call per frame."""

    def __init__(self, table: _FrameTable) -> None:
        super().__init__()
        self._table = table

    def __missing__(self, text: str) -> int:
        self[text] = self._table[text, False]
        return self[text]


def _frame(text: str, in_kernel: bool) -> Frame:
    kind = _KINDS.get(text[-4:])
    name = _unescaped(text[:-4] if kind else text)
    if name in {"-", "--"} or name.startswith(_NOTES):
        return Frame(name, FrameKind.NOTE)
    return Frame(name, kind or (FrameKind.KERNEL if in_kernel else FrameKind.USER))
