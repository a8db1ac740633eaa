"""The one exception of this folder, and the exit codes that commands end with.

Source: sysexits.h for 66, 74 and 77.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit status means; 128+n is "ended by signal n"."""

    DONE = 0
    BUG = 1
    USAGE = 2
    INVALID_CAPTURE = 4
    INPUT = 66
    OUTPUT = 74
    CANNOT_PROFILE = 77


class ProfilerError(Exception):
    """No result. The message is one line: the thing, the value and the next step for the user."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.CANNOT_PROFILE, detail: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.detail = detail  # for --debug: libbpf's words, the verifier's log
