"""From a profile to the bytes of a format, chosen by the ending of a file's name."""

from dataclasses import dataclass

import click

from pyprof.profiler.profile import Profile
from pyprof.symbolize.text import printable

SUFFIXES = {
    ".svg": "svg",
    ".folded": "folded",
    ".pb.gz": "pprof",
    ".pprof": "pprof",
    ".txt": "txt",
    ".json": "json",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How a profile is to be drawn, and where to."""

    output: str | None  # None: chosen by what standard output is
    format_name: str | None
    delimited: bool = False
    annotated: bool = False
    pids: bool = False
    tids: bool = False
    title: str = ""
    inverted: bool = False
    width: int = 1200


def drawing_of(options: dict[str, object], *, tids: bool = False) -> Drawing:
    """Return the drawing that the command's options ask for; takes them out of `options`.

    Raises: click.UsageError when two of them do not fit.
    """
    output, format_name = options.pop("output"), options.pop("format_name")
    if options.pop("folded"):
        if format_name not in {None, "folded"}:
            raise click.UsageError("-f means --format folded; leave one of the two out")
        output, format_name = output or "-", "folded"
    drawing = Drawing(
        output=None if output is None else str(output),
        format_name=None if format_name is None else str(format_name),
        delimited=bool(options.pop("delimited")),
        annotated=bool(options.pop("annotate")),
        pids=bool(options.pop("show_pids")),
        tids=tids,
        title=str(options.pop("title")),
        inverted=bool(options.pop("inverted")),
        width=int(str(options.pop("width"))),
    )
    if drawing.output is not None:
        chosen_format(drawing)
    return drawing


def chosen_format(drawing: Drawing) -> str:
    """Return the name of the drawing's format.

    Raises: click.UsageError when the file's ending names none.
    """
    if drawing.format_name:
        return drawing.format_name
    if drawing.output in {None, "-", "/dev/stdout", "/dev/null"}:
        return "folded"
    for suffix, name in SUFFIXES.items():
        if str(drawing.output).endswith(suffix):
            return name
    endings = " ".join(SUFFIXES)
    raise click.UsageError(
        f"no format has the ending of {printable(drawing.output or '')}; use one of {endings}, or --format"
    )


def rendered(profile: Profile, drawing: Drawing) -> bytes:
    """Return the profile in the drawing's format."""
    from pyprof.render.stack import StackStyle

    style = StackStyle(
        delimited=drawing.delimited, annotated=drawing.annotated, pids=drawing.pids, tids=drawing.tids
    )
    match chosen_format(drawing):
        case "svg":
            from pyprof.render.svg import SvgOptions, flame_svg

            options = SvgOptions(title=drawing.title, width=drawing.width, inverted=drawing.inverted)
            return flame_svg(profile, options, style)
        case "pprof":
            from pyprof.render.pprof import encode_pprof

            return encode_pprof(profile)
        case "txt":
            from pyprof.render.top import top_text

            return top_text(profile).encode()
        case "json":
            from pyprof.render.top import top_json

            return top_json(profile).encode()
    from pyprof.render.folded import folded

    return folded(profile, style)
