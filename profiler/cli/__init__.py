"""The command line: the group of commands, and the one place where an error becomes an exit code.

Each command's module imports what it needs when it runs: `pyprof --help` loads click and nothing else.
"""

import errno
import os
import sys

import click

from pyprof.profiler.cli.cpu import cpu
from pyprof.profiler.cli.doctor import doctor
from pyprof.profiler.cli.render import render
from pyprof.profiler.cli.top import top
from pyprof.profiler.errors import ExitCode, ProfilerError
from pyprof.profiler.interrupts import Aborted
from pyprof.symbolize.text import printable

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def show_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from pyprof.profiler.version import version_text

        click.echo(version_text())
        context.exit()


@click.group(context_settings=CONTEXT)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the versions of pyprof, libbpf and the kernel.",
)
def commands() -> None:
    """Profile a live Linux machine and draw flame graphs.

    `pyprof cpu 30` samples every process for 30 seconds; `pyprof cpu -p 4057` one of them until Ctrl-C;
    `pyprof cpu -- make` a command and its children. `pyprof doctor` tells what works on this machine.

    Exit codes: 0 done, 1 bug, 2 usage, 4 too much was lost, 66 an input cannot be read, 74 output error,
    77 cannot profile here, 128+n ended by signal n after writing what there was.
    """


for command in (cpu, render, top, doctor):
    commands.add_command(command)


def exit_code(arguments: list[str]) -> int:  # noqa: PLR0911 - one return for each ending
    """Run the command line and return its exit code, after telling the user what went wrong."""
    try:
        result = commands.main(args=arguments, prog_name="pyprof", standalone_mode=False)
    except ProfilerError as error:
        return _told(str(error), error.exit_code, error.detail if "--debug" in arguments else "")
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        words = f"{error.format_message().rstrip('.')}; see {_command_path(error)} --help"
        return _told(" ".join(words.split()), error.exit_code, "")
    except (KeyboardInterrupt, click.Abort, Aborted):
        return 130
    except (BrokenPipeError, SystemExit):  # click makes a SystemExit of a broken pipe, and of nothing else
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to flush
        return 141
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _told("disk full writing standard output: try -o ELSEWHERE", ExitCode.OUTPUT, "")
        return _told(f"{error.filename or 'input or output'}: {error.strerror}", ExitCode.OUTPUT, "")
    return result if isinstance(result, int) else 0


def _command_path(error: click.UsageError) -> str:
    return error.ctx.command_path if error.ctx else "pyprof"


def _told(message: str, code: int, detail: str) -> int:
    click.echo(f"pyprof: {printable(message)}", err=True)
    if detail:
        click.echo(detail.rstrip(), err=True)
    return code
