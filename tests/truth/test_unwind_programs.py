"""User stacks from unwind tables, in programs as distributions ship them: built without frame pointers."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from pyprof.symbolize.frame import Frame, FrameKind

pytestmark = pytest.mark.bpf

# mypy: disable-error-code="no-untyped-def"

SECONDS = "2"
ENTRY_BYTES = 0x80  # _start, and what follows upon it in the dynamic linker
LOOP = "while True: sum(i * i for i in range(1000))"
PERL_LOOP = "while (1) { $seen{join ',', sort map { $_ * 2 } 1 .. 50}++ }"
BASH_LOOP = "f() { local i; for ((i = 0; i < 100; i++)); do [[ $i == 7* ]]; done; }; while :; do f; done"
FUNCTION = """
int f{0}(int *a, int n) {{
    int sum = {0};
    for (int i = 0; i < n; i++) {{
        switch (a[i] % 7) {{
        case 0: sum += a[i] * {0}; break;
        case 3: sum ^= a[n - i]; break;
        default: sum -= i;
        }}
    }}
    return sum;
}}
"""

Command = Callable[[Path], list[str]]


def python(folder: Path) -> list[str]:
    return ["/usr/bin/python3", "-c", LOOP]


def pyenv_python(folder: Path) -> list[str]:
    """Return a loop in the newest Python that pyenv built, if there is one."""
    found = [
        path for home in {Path.home(), Path("/root")} for path in home.glob(".pyenv/versions/*/bin/python3")
    ]
    if not found:
        pytest.skip("pyenv has no Python here")
    return [str(max(found, key=lambda path: path.stat().st_mtime)), "-c", LOOP]


def perl(folder: Path) -> list[str]:
    return ["perl", "-e", PERL_LOOP]


def bash(folder: Path) -> list[str]:
    return ["bash", "-c", BASH_LOOP]


def cc1(folder: Path) -> list[str]:
    source = folder / "functions.c"
    source.write_text("".join(FUNCTION.format(number) for number in range(600)))
    return ["gcc", "-O2", "-S", "-o", str(folder / "functions.s"), str(source)]


def xz(folder: Path) -> list[str]:
    return ["xz", "--keep", "--threads=1", str(lines(folder))]


def sort(folder: Path) -> list[str]:
    return ["sort", "--random-sort", "--parallel=2", "--output", str(folder / "sorted"), str(lines(folder))]


def git(folder: Path) -> list[str]:
    """Return the differences of each commit of a generated history, again and again."""
    subprocess.run(["git", "init", "-q", str(folder / "repository")], check=True)
    text = [f"line {number}" for number in range(2000)]
    stream = []
    for commit in range(400):
        text[commit::97] = [f"changed by {commit}"] * len(text[commit::97])
        content = "\n".join(text)
        stream.append(f"commit refs/heads/main\ncommitter A <a@example.org> {commit} +0000\ndata 1\nx\n")
        stream.append(f"M 644 inline file\ndata {len(content)}\n{content}\n")
    fast_import = ["git", "-C", str(folder / "repository"), "fast-import", "--quiet"]
    subprocess.run(fast_import, input="".join(stream), text=True, check=True)
    log = f"git -C {folder}/repository --no-pager log -p --word-diff main >/dev/null"
    return ["sh", "-c", f"for i in 1 2 3 4 5 6 7 8 9 10 11 12; do {log}; done"]


def openssl_hash(folder: Path) -> list[str]:
    return ["openssl", "speed", "-seconds", SECONDS, "-bytes", "8192", "sha256"]


def openssl_sign(folder: Path) -> list[str]:
    return ["openssl", "speed", "-seconds", "1", "rsa2048"]


PROGRAMS: list[Command] = [
    *(python, pyenv_python, perl, bash, cc1, xz, sort, git),
    *(openssl_hash, openssl_sign),  # assembler with tables written by hand
]


def lines(folder: Path) -> Path:
    """Return a file of a million lines in no order."""
    path = folder / "lines"
    path.write_text("".join(f"{number * 7919 % 1_000_003:07} some words\n" for number in range(1_000_000)))
    return path


def user_stacks(profile) -> list[tuple[list[Frame], int]]:
    """Return the user half of each stack that has one, root first, with its value."""
    stacks = []
    for sample in profile.samples:
        user = [profile.frames[index] for index in sample.stack]
        user = [frame for frame in user if frame.kind is not FrameKind.KERNEL]
        if user:
            stacks.append((user, sample.value))
    return stacks


@cache
def entry(module: str) -> int:
    """Return where in its file a program starts, -1 when the file cannot be read."""
    try:
        with open(module, "rb") as stream:
            elf = ELFFile(stream)
            return next(iter(elf.address_offsets(elf.header.e_entry)), -1)
    except OSError:
        return -1


def reason(user: list[Frame]) -> str:
    """Return why a stack does not reach the start of its process or thread, "" when it does."""
    root = user[0]
    if root.kind is FrameKind.NOTE:
        return root.name
    starts_thread = len(user) > 1 and all(Path(frame.module).name.startswith("libc.so") for frame in user[:2])
    if starts_thread or 0 <= root.address - entry(root.module) < ENTRY_BYTES:
        return ""
    return f"begins in {root.name}"


@pytest.mark.parametrize("command", PROGRAMS, ids=lambda command: command.__name__)
def test_99_percent_of_the_stacks_are_complete(command, capture, tmp_path) -> None:
    arguments = command(tmp_path)
    if not shutil.which(arguments[0]):
        pytest.skip(f"{arguments[0]} is not installed")
    captured = capture("-F", "199", "--unwind", "dwarf", SECONDS, "--", *arguments)
    stacks = user_stacks(captured.profile)
    total = sum(value for _, value in stacks)
    reasons: Counter[str] = Counter()
    for user, value in stacks:
        reasons[reason(user)] += value
    noted = sum(value for why, value in reasons.items() if why.startswith("["))  # cut, guessed or unread
    told = f"{noted} of {total} not complete: {reasons.most_common()}"
    assert total > 100, told
    assert noted <= 0.01 * total, told
    assert reasons[""] >= 0.95 * total, told
