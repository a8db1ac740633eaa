"""`pyprof top`: the functions of a saved profile as a table."""

from typing import Literal

import click


@click.command()
@click.argument("path", metavar="FILE")
@click.option(
    "--by",
    type=click.Choice(["self", "total"]),
    default="self",
    show_default=True,
    help="Order by the samples in a function alone, or with what it calls.",
)
@click.option("-n", "--limit", type=click.IntRange(1), default=30, show_default=True, help="Rows to print.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def top(path: str, by: str, limit: int, as_json: bool) -> None:
    """Print the hottest functions of a profile: its self and total samples.

    FILE is a saved profile (.pb.gz) or folded stacks; - is standard input.
    """
    from pyprof.profiler.cli.inputs import read_profile
    from pyprof.render.top import top_json, top_text

    profile = read_profile(path)
    order: Literal["self", "total"] = "self" if by == "self" else "total"
    text = (top_json if as_json else top_text)(profile, order, limit)
    click.echo(text.rstrip("\n"))
