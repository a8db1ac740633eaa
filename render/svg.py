"""Flame graph as one SVG file: a picture that stands on its own, and more with scripts on.

All that a reader must know is text in the picture: title, total, provenance, losses, and a tooltip for
each frame. The script (assets/flamegraph.js) adds zoom, search and a details line; it builds its own
controls, so nothing in the picture is dead where scripts do not run. No external reference, no inline
handler; identifiers carry a digest of the contents, so that several pictures can share a page.

Source: Scalable Vector Graphics 1.1; Content Security Policy 3 for what hosts allow.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import NamedTuple

from pyprof.profiler.profile import Profile
from pyprof.render.caption import (
    caption_data,
    count_words,
    loss_words,
    percent,
    provenance_words,
    quality_words,
    stack_words,
    title_words,
)
from pyprof.render.errors import RenderError
from pyprof.render.escape import xml_text
from pyprof.render.flame import FlameGraph, FlameNode, flame_graph
from pyprof.render.lettering import CELL_PX, MIN_LETTERED_PX, fitted, short_names, wrapped
from pyprof.render.palette import KIND_WORDS, frame_colour, kind_colour
from pyprof.render.stack import PLAIN, StackStyle
from pyprof.symbolize.frame import FrameKind
from pyprof.symbolize.text import printable

FRAME_PX = 16  # height of a level

_PADDING_PX = 10
_LINE_PX = 16
_DETAILS_PX = 28  # below the frames, for the details line
_CONTROLS_PX = 650  # right of the title; the script's search box and buttons
_TITLE_CELL_PX = 10.3  # advance of a character of the title
_MIN_WIDTH_PX, _MAX_WIDTH_PX = 300, 100_000
_ASSETS = Path(__file__).with_name("assets")


@dataclass(frozen=True, slots=True, kw_only=True)
class SvgOptions:
    """What the picture looks like."""

    title: str = ""  # "" for one made of the profile's mode
    subtitle: str = ""
    width: int = 1200  # of the whole picture, pixels
    min_width_px: float = 0.25  # narrower frames are not drawn
    inverted: bool = False  # the root at the top, an icicle graph
    count_name: str = ""  # plural of what a value counts, "" for the profile's unit


DEFAULT = SvgOptions()


class _Line(NamedTuple):
    """A line of the caption."""

    text: str
    style: str  # class in assets/flamegraph.css


def flame_svg(profile: Profile, options: SvgOptions = DEFAULT, style: StackStyle = PLAIN) -> bytes:
    """Return the flame graph as an SVG document in UTF-8; equal arguments give equal bytes.

    Raises: RenderError for a width that cannot be drawn.
    """
    _check(options)
    inner_px = options.width - 2 * _PADDING_PX
    graph = flame_graph(profile, style, options.min_width_px / inner_px)
    unit = options.count_name or profile.unit
    lines = _caption(profile, graph, options, unit)
    body = [*_caption_svg(lines, options), *_legend(graph, _baseline(len(lines), options))]
    top_px = _baseline(len(lines) + 1, options)
    if graph.nodes[0].total:
        body += _frames(graph, options, unit, top_px)
        height = top_px + graph.levels * FRAME_PX + _DETAILS_PX
    else:
        body.append(f'<text class="empty" x="{_PADDING_PX}" y="{top_px + 16}">no {xml_text(unit)}</text>\n')
        height = top_px + _DETAILS_PX
    return _document("".join(body), _metadata(profile, graph), options, _title(profile, options), height)


def _check(options: SvgOptions) -> None:
    if not _MIN_WIDTH_PX <= options.width <= _MAX_WIDTH_PX:
        raise RenderError(
            f"width of the flame graph: {options.width} pixels cannot be drawn; "
            f"choose from {_MIN_WIDTH_PX} to {_MAX_WIDTH_PX}"
        )
    if not 0 <= options.min_width_px <= options.width:
        raise RenderError(
            f"narrowest frame of the flame graph: {options.min_width_px} pixels; "
            f"choose from 0 to the width, {options.width}"
        )


def _title(profile: Profile, options: SvgOptions) -> str:
    return options.title or title_words(profile.provenance)


def _caption(profile: Profile, graph: FlameGraph, options: SvgOptions, unit: str) -> list[_Line]:
    """Return the lines above the frames: title, total, provenance, quality, losses, notes."""
    total = count_words(graph.nodes[0].total, unit)
    paragraphs = [
        ([f"{total} · {options.subtitle}" if options.subtitle else total], "total"),
        (provenance_words(profile.provenance), "fact"),
        (quality_words(profile.quality, unit), "fact"),
        (stack_words(profile.quality, profile.provenance.unwind), "fact"),
        (loss_words(profile.quality), "loss"),
        *(([note], "note") for note in profile.provenance.notes),
        (_pruned_words(graph, options), "faint"),
    ]
    inner_px = options.width - 2 * _PADDING_PX
    lines = [_Line(_fitted_title(profile, options, inner_px), "title")]
    for phrases, style in paragraphs:
        texts = wrapped([printable(words) for words in phrases], inner_px)
        lines += [_Line(text, style) for text in texts]
    return lines


def _fitted_title(profile: Profile, options: SvgOptions, inner_px: int) -> str:
    """Return the title, cut where the search box begins."""
    title = printable(_title(profile, options))
    room_px = inner_px - (_CONTROLS_PX if _controls_beside(options) else 0)
    return fitted((title,), room_px * CELL_PX / _TITLE_CELL_PX)


def _pruned_words(graph: FlameGraph, options: SvgOptions) -> list[str]:
    if not graph.pruned_branches:
        return []
    branches = "1 branch" if graph.pruned_branches == 1 else f"{graph.pruned_branches:,} branches"
    share = percent(graph.pruned_value, graph.nodes[0].total)
    return [
        f"not drawn: {branches} narrower than {options.min_width_px:g} px",
        f"together {share} of the width",
    ]


def _controls_beside(options: SvgOptions) -> bool:
    return options.width >= _CONTROLS_PX + 300


def _caption_svg(lines: list[_Line], options: SvgOptions) -> Iterator[str]:
    for number, line in enumerate(lines):
        y = _baseline(number, options)
        yield f'<text class="{line.style}" x="{_PADDING_PX}" y="{y}">{xml_text(line.text)}</text>\n'


def _baseline(line: int, options: SvgOptions) -> int:
    """Return the y of a line of the caption; a narrow picture has the controls above the first."""
    return (24 if _controls_beside(options) else 50) + line * _LINE_PX


def _legend(graph: FlameGraph, y: int) -> Iterator[str]:
    """Yield a swatch and a word for each kind of frame that is drawn."""
    present = {node.kind for node in graph.nodes[1:]}
    x = _PADDING_PX
    for kind, word in KIND_WORDS.items():
        if kind in present:
            yield f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{kind_colour(kind)}"/>'
            yield f'<text class="fact" x="{x + 17}" y="{y}">{word}</text>\n'
            x += 17 + 8 * len(word) + 16


def _frames(graph: FlameGraph, options: SvgOptions, unit: str, top_px: int) -> Iterator[str]:
    inner_px = options.width - 2 * _PADDING_PX
    direction = "down" if options.inverted else "up"
    yield f'<g class="frames" transform="translate({_PADDING_PX} {top_px})" data-width="{inner_px}"'
    yield f' data-unit="{xml_text(unit)}" data-grows="{direction}">\n'
    whole = graph.nodes[0].total
    scale = inner_px / whole
    labels: dict[tuple[str, FrameKind, str], _Label] = {}
    counts: dict[int, str] = {}
    for node in graph.nodes:
        key = node.name, node.kind, node.module
        label = labels.get(key) or labels.setdefault(key, _label(node))
        words = counts.get(node.total) or counts.setdefault(node.total, _count(node.total, whole, unit))
        level = node.depth if options.inverted else graph.levels - 1 - node.depth
        yield (
            f'<g data-f="{label.length} {node.start} {node.total}"><title>{label.title}{words}</title>'
            f'<rect x="{node.start * scale:.2f}" y="{level * FRAME_PX}" width="{node.total * scale:.2f}"'
            f' height="{FRAME_PX - 1}" fill="{label.colour}"/>'
            f"{_lettering(label, node, level, scale)}</g>\n"
        )
    yield "</g>\n"


class _Label(NamedTuple):
    """What is equal in all frames of one name, kind and module."""

    name: str  # printable
    title: str  # escaped: name and module
    length: int  # of the name in the tooltip, UTF-16 units: what a script counts in
    colour: str


def _label(node: FlameNode) -> _Label:
    name, module = printable(node.name), node.module.rpartition("/")[2].strip("[]")
    return _Label(
        name=name,
        title=xml_text(f"{name} [{module}]" if module else name),
        length=len(name) if name.isascii() else len(name.encode("utf-16-le")) // 2,
        colour=frame_colour(node.name, node.kind),
    )


def _count(value: int, whole: int, unit: str) -> str:
    return f" ({xml_text(count_words(value, unit))}, {percent(value, whole)})"


def _lettering(label: _Label, node: FlameNode, level: int, scale: float) -> str:
    """Return as much of the name as fits into the frame's box."""
    width = node.total * scale
    text = fitted(short_names(label.name), width) if width >= MIN_LETTERED_PX else ""
    if not text:
        return ""
    return f'<text x="{node.start * scale + 3:.2f}" y="{level * FRAME_PX + 12}">{xml_text(text)}</text>'


def _metadata(profile: Profile, graph: FlameGraph) -> str:
    pruned = {"branches": graph.pruned_branches, "value": graph.pruned_value}
    return xml_text(dumps(caption_data(profile) | {"pruned": pruned}, sort_keys=True))


def _document(body: str, metadata: str, options: SvgOptions, title: str, height: int) -> bytes:
    digest = sha256(f"{metadata}{options}{body}".encode()).hexdigest()[:12]
    identifier = f"pyprof-{digest}"
    width = options.width
    beside = "beside" if _controls_beside(options) else "over"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" version="1.1" id="{identifier}" class="pyprof"'
        f' width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        f' font-family="DejaVu Sans Mono,Menlo,Consolas,monospace" font-size="12" data-controls="{beside}">\n'
        f"<title>{xml_text(title)}</title>\n<metadata>{metadata}</metadata>\n"
        f"<style><![CDATA[\n{_asset('flamegraph.css').replace('#pyprof', f'#{identifier}')}]]></style>\n"
        f'<rect class="paper" width="100%" height="100%" fill="#ffffff"/>\n{body}'
        f"<script><![CDATA[\n{_asset('flamegraph.js')}]]></script>\n</svg>\n"
    ).encode()


@cache
def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")
