"""Where a finished profile goes: a file, standard output, or both a picture and a table."""

import sys
from dataclasses import replace

import click

from pyprof.profiler import output
from pyprof.profiler.cli.formats import Drawing, rendered
from pyprof.profiler.cli.report import tell
from pyprof.profiler.errors import ExitCode, ProfilerError
from pyprof.profiler.profile import Profile

HOTTEST_ROWS = 10
NEW_FILE_FORMATS = frozenset({None, "svg", "pprof"})  # written to a file of our naming on a terminal


def check(drawing: Drawing) -> None:
    """Raise ProfilerError now if the result could not be written later."""
    is_terminal = sys.stdout.isatty()
    if drawing.output is not None:
        output.check_writable(drawing.output)
    elif is_terminal and drawing.format_name in NEW_FILE_FORMATS:
        output.check_writable(output.default_name("profile"))
    if drawing.output in output.STANDARD_OUTPUT and is_terminal and drawing.format_name == "pprof":
        raise ProfilerError("pprof is not text: give a file with -o x.pb.gz", ExitCode.USAGE)


def deliver(profile: Profile, drawing: Drawing, *, quiet: bool) -> None:
    """Write the profile where the drawing says.

    Without a place: on a terminal a new SVG file, the hottest functions and stacks, else folded stacks.
    A profile that cannot be written is kept in a temporary folder.
    """
    is_terminal = sys.stdout.isatty()
    if drawing.output is None and is_terminal and drawing.format_name in NEW_FILE_FORMATS:
        drawing = replace(
            drawing, output=_new_file(profile, drawing), format_name=drawing.format_name or "svg"
        )
        click.echo(_hottest(profile), nl=False)
    place = drawing.output or "-"
    data = rendered(profile, drawing)
    try:
        output.write(place, data)
    except ProfilerError as error:
        raise _kept(profile, error) from error
    is_file = place not in output.STANDARD_OUTPUT and place != output.DISCARD
    tell(profile, place if is_file else None, quiet=quiet)
    if is_file and not is_terminal:
        click.echo(place)


def _new_file(profile: Profile, drawing: Drawing) -> str:
    suffix = ".pb.gz" if drawing.format_name == "pprof" else ".svg"
    return str(output.unused_path(output.default_name(profile.provenance.mode or "profile", suffix=suffix)))


def _hottest(profile: Profile) -> str:
    import shutil

    from pyprof.render.hottest import hottest_text
    from pyprof.render.top import top_text

    stacks = hottest_text(profile, width=shutil.get_terminal_size().columns)
    return f"{top_text(profile, limit=HOTTEST_ROWS)}\n{stacks}"


def _kept(profile: Profile, error: ProfilerError) -> ProfilerError:
    from pyprof.render.pprof import encode_pprof

    path = output.rescue(encode_pprof(profile), ".pb.gz")
    if not path:
        return error
    return ProfilerError(
        f"{error}; the profile is in {path} (pyprof render {path} -o x.svg)", error.exit_code
    )
