"""The entry point of the `pyprof` script: quiet under Ctrl-C from its first moment to its last."""

import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # nohup, a background job
    if not is_ignored:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupted import would print a traceback
    _open_standard_streams()
    from pyprof.profiler.cli import exit_code  # noqa: PLC0415 - not before the line above

    if not is_ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = exit_code(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the result is written: nothing is left to stop
    sys.exit(code)


def _open_standard_streams() -> None:
    """Give /dev/null to streams that the caller closed, so that no file of ours takes their number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, mode))  # noqa: SIM115 - open until the process ends
