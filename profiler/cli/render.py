"""`pyprof render`: draw or convert a saved profile, on any machine."""

from typing import TYPE_CHECKING, Any

import click

from pyprof.profiler.cli.options import drawing_options

if TYPE_CHECKING:
    from pyprof.profiler.profile import Profile


@click.command()
@click.argument("path", metavar="FILE")
@drawing_options
@click.option("--no-symbols", is_flag=True, help="Do not look for the names of frames without one.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing on standard error but errors.")
def render(path: str, **options: Any) -> None:
    """Draw or convert a saved profile.

    FILE is a saved profile (.pb.gz) or folded stacks; - is standard input. Frames that were saved
    without a name are looked up in this machine's files, where the build id is the same.

    \b
    pyprof render incident.pb.gz -o incident.svg
    pyprof render stacks.folded -o stacks.pb.gz
    """
    from pyprof.profiler.cli.deliver import check, deliver
    from pyprof.profiler.cli.formats import drawing_of
    from pyprof.profiler.cli.inputs import read_profile

    drawing = drawing_of(options)
    check(drawing)
    profile = read_profile(path)
    if not options["no_symbols"]:
        profile = _with_names(profile)
    deliver(profile, drawing, quiet=options["quiet"])


def _with_names(profile: "Profile") -> "Profile":
    import os

    from pyprof.profiler.name import is_unnamed, reopened, with_user_names

    if not any(map(is_unnamed, profile.frames)):
        return profile
    unnamed = reopened(profile)
    try:
        return with_user_names(unnamed)
    finally:
        for descriptor in unnamed.descriptors:
            if descriptor >= 0:
                os.close(descriptor)
