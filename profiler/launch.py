"""The entry point of the `pyprof` script: quiet under Ctrl-C from its first moment to its last."""

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupted import would print a traceback
    from pyprof.profiler.cli import exit_code  # noqa: PLC0415 - not before the line above

    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = exit_code(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the result is written: nothing is left to stop
    sys.exit(code)
