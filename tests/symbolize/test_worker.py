import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from elfwriter import TEXT_OFFSET, Sym, elf
from hypothesis import given, settings
from hypothesis import strategies as st

from pyprof.symbolize import parser, sandbox
from pyprof.symbolize.worker import Answer, Binary, Request, symbolize

GOOD = elf(
    [Sym(b"main", 0, 16), Sym(b"_ZN2ns4workEi", 16, 16), Sym(b"\x1b[2J\xff", 32, 16)],
    build_id=bytes(range(20)),
)
GOOD_ID = bytes(range(20)).hex()
OFFSETS = (TEXT_OFFSET, TEXT_OFFSET + 20, TEXT_OFFSET + 40, TEXT_OFFSET + 100)
NAMES = ("main", "ns::work", r"\x1b[2J\xff", "")
MANGLED = ("main", "_ZN2ns4workEi", r"\x1b[2J\xff", "")


def request(key: int = 1, data: bytes = GOOD, fd: int = -1, build_id: str = "") -> Request:
    return Request(Binary(key, fd, b"" if fd >= 0 else data, build_id), OFFSETS)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def _children() -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except OSError:
            continue
        if fields["PPid"] == str(os.getpid()):
            found.append(int(fields["Pid"]))
    return found


def test_data_and_descriptors_are_answered_in_order(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(GOOD)
    with open(tmp_path / "good", "rb") as file:
        answers = list(symbolize([request(7), request(3, fd=file.fileno(), build_id=GOOD_ID.upper())]))
    assert answers == [Answer(7, NAMES, GOOD_ID, ""), Answer(3, NAMES, GOOD_ID, "")]


def test_a_file_that_the_worker_could_not_open_itself_is_read(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(GOOD)
    with open(tmp_path / "good", "rb") as file:
        (tmp_path / "good").chmod(0)
        tmp_path.chmod(0o700)
        assert next(symbolize([request(fd=file.fileno())])).names == NAMES


def test_no_requests_need_no_worker() -> None:
    assert list(symbolize([])) == []


def test_a_request_without_offsets_tells_the_build_id() -> None:
    assert list(symbolize([Request(Binary(1, -1, GOOD, ""), ())])) == [Answer(1, (), GOOD_ID, "")]


@pytest.mark.parametrize("expected", ["00" * 20, GOOD_ID[:-2]])
def test_names_of_another_build_are_not_given(expected: str) -> None:
    assert list(symbolize([request(build_id=expected)])) == [
        Answer(1, ("",) * 4, GOOD_ID, "build id differs")
    ]


def test_what_cannot_be_read_costs_only_itself() -> None:
    closed = os.dup(0)
    os.close(closed)
    answers = list(symbolize([request(1, b"#!/bin/sh\n" * 9), request(2, fd=closed), request(3)]))
    assert answers[0] == Answer(1, ("",) * 4, "", "not an ELF file")
    assert answers[1].failure
    assert answers[2] == Answer(3, NAMES, GOOD_ID, "")


def _bomb(code: str) -> bytes:
    """Return a file that makes the worker run `code`: see `bombs`."""
    return b"\x7fELF bomb " + code.encode()


@pytest.fixture
def bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let some files do in the worker what a hostile file would do to a parser."""
    real = parser.ElfSymbols

    def elf_symbols(image: bytes) -> object:
        kind = image[10:].decode() if image.startswith(b"\x7fELF bomb ") else ""
        if kind == "memory":
            bytes(4 << 30)
        elif kind == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif kind == "exit":
            sys.exit(3)
        elif kind == "bug":
            raise KeyError("deep inside")
        elif kind == "spin":
            while True:
                pass
        elif kind == "sleep":
            time.sleep(60)
        return real(image)

    monkeypatch.setattr(parser, "ElfSymbols", elf_symbols)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("memory", "symbol worker ran out of memory"),
        ("crash", "symbol worker was ended by signal 11"),
        ("exit", "symbol worker crashed"),
        ("bug", "cannot be parsed (KeyError)"),
        ("spin", "symbol worker ran out of time"),
        ("sleep", "symbol worker ran out of time"),
    ],
)
@pytest.mark.usefixtures("bombs")
def test_a_bomb_costs_one_module(kind: str, reason: str) -> None:
    requests = [request(1), request(2, _bomb(kind)), request(3), request(4, _bomb(kind)), request(5)]
    answers = list(symbolize(requests, module_timeout_s=0.7))
    assert [answer.key for answer in answers] == [1, 2, 3, 4, 5]
    assert [answer.failure for answer in answers] == ["", reason, "", reason, ""]
    assert [answer.names for answer in answers] == [NAMES, ("",) * 4, NAMES, ("",) * 4, NAMES]


@pytest.mark.usefixtures("bombs")
def test_the_total_time_is_limited() -> None:
    start = time.monotonic()
    answers = list(symbolize([request(key, _bomb("sleep")) for key in range(50)], total_timeout_s=0.5))
    assert time.monotonic() - start < 3
    assert {answer.failure for answer in answers} == {"symbol worker ran out of time"}
    assert len(answers) == 50


def test_a_name_that_kills_the_demangler_stays_mangled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser.demangle, "readable_name", lambda name: os.kill(os.getpid(), signal.SIGSEGV))
    answers = list(symbolize([request(1), request(2)]))
    for answer in answers:
        assert answer.names == ("main", "_ZN2ns4workEi", r"\x1b[2J\xff", "")
        assert answer.failure == "names left mangled: symbol worker was ended by signal 11"


def test_a_name_that_stands_for_gigabytes_costs_only_the_reading_of_names() -> None:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    bomb = "_Z1fSt4pairIiiE" + "".join(f"S_IS{digit}_S{digit}_E" for digit in digits[:28])
    image = elf([Sym(b"main", 0, 16), Sym(bomb.encode(), 16, 16)])
    first, second = symbolize([request(1, image), request(2)], module_timeout_s=0.7)
    assert first.names == ("main", bomb, "", "")
    assert first.failure == "names left mangled: symbol worker ran out of time"
    assert second.names == NAMES


def test_a_large_file_is_mapped_beyond_the_memory_limit(tmp_path: Path) -> None:
    with open(tmp_path / "large", "w+b") as file:
        file.write(GOOD)
        file.flush()
        os.truncate(file.fileno(), 1 << 30)
        first, second = symbolize([request(1, fd=file.fileno()), request(2, fd=file.fileno())])
        assert first.names == second.names == NAMES
        os.truncate(file.fileno(), (1 << 30) + 1)
        assert next(symbolize([request(3, fd=file.fileno())])).failure == "larger than 1 GiB"


@pytest.mark.parametrize(
    "frames",
    [b"\0\0\0\0", b"\2\0\0\0{}", b"\xff\xff\xff\xff", b"\5\0\0\0[[[[["],
    ids=["empty", "shape", "size", "json"],
)
def test_nonsense_from_the_worker_costs_one_module(monkeypatch: pytest.MonkeyPatch, frames: bytes) -> None:
    real = parser.frames
    monkeypatch.setattr(
        parser, "frames", lambda asked: iter([frames]) if asked.binary.key == 1 else real(asked)
    )
    answers = list(symbolize([request(1), request(2)]))
    assert answers[0] == Answer(1, ("",) * 4, "", "symbol worker answered nonsense")
    assert answers[1] == Answer(2, NAMES, GOOD_ID, "")


def test_a_worker_that_keeps_its_privileges_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise sandbox.ConfinementError

    monkeypatch.setattr(sandbox, "confine", refuse)
    answers = list(symbolize([request(1), request(2)]))
    assert {answer.failure for answer in answers} == {"symbol worker could not give up its privileges"}


@pytest.mark.usefixtures("bombs")
def test_the_worker_runs_as_nobody_and_ends_with_the_iterator() -> None:
    answers = symbolize([request(1), request(2, _bomb("sleep"))])
    next(answers)
    (child,) = _children()
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{child}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    if os.geteuid() == 0:
        assert status["Uid"].split() == status["Gid"].split() == ["65534"] * 4
        assert int(status["CapEff"], 16) == 0
        assert status["Groups"].split() == []
    answers.close()
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.usefixtures("bombs")
def test_an_exception_of_the_caller_ends_the_worker() -> None:
    answers = symbolize([request(1), request(2, _bomb("sleep"))])
    next(answers)
    with pytest.raises(ZeroDivisionError):
        answers.throw(ZeroDivisionError)
    assert _children() == []


@pytest.mark.parametrize(
    ("number", "names", "failure"),
    [
        (signal.SIGUSR1, MANGLED, "names left mangled: symbol worker was ended by signal 10"),
        (signal.SIGTERM, NAMES, ""),  # the parent ends the worker when it ends itself
    ],
)
def test_a_handler_of_the_caller_does_not_run_in_the_worker(
    number: int, names: tuple[str, ...], failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = parser.demangle.readable_name, []

    def readable_name(name: str) -> str:
        os.kill(os.getpid(), number)
        return real(name)

    old = signal.signal(number, lambda *_: calls.append(os.getpid()))
    try:
        monkeypatch.setattr(parser.demangle, "readable_name", readable_name)
        assert list(symbolize([request(1)])) == [Answer(1, names, GOOD_ID, failure)]
    finally:
        signal.signal(number, old)
    assert calls == []


@pytest.mark.usefixtures("bombs")
def test_ignored_children_are_no_trouble() -> None:
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        answers = []
        for answer in symbolize([request(1), request(2, _bomb("crash")), request(3)]):
            answers.append(answer.names)
            time.sleep(0.05)  # so that the last worker is gone before it is ended
    finally:
        signal.signal(signal.SIGCHLD, old)
    assert answers == [NAMES, ("",) * 4, NAMES]


def test_a_worker_that_cannot_start_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    answers = list(symbolize([request(1), request(2)]))
    assert {answer.failure for answer in answers} == {
        "symbol worker cannot start: Resource temporarily unavailable"
    }


def test_importing_the_worker_imports_nothing_slow() -> None:
    code = (
        "import sys\n"
        "from pyprof.symbolize import frame, kallsyms, text, vdso, worker\n"
        "print({'numpy', 'elftools', 'symbolic', 'json', 'ctypes'} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "set()"


def test_2000_places_in_real_libraries_are_named_in_time() -> None:
    paths = sorted({p.resolve() for p in Path("/usr/lib/x86_64-linux-gnu").glob("lib*.so.*")})[:60]
    if len(paths) < 20:
        pytest.skip("not enough libraries")
    files = [open(path, "rb") for path in paths]  # noqa: SIM115 (closed below)
    try:
        requests = [
            Request(
                Binary(key, file.fileno(), b"", ""), tuple(range(0x1000, os.stat(path).st_size, 997))[:35]
            )
            for key, (file, path) in enumerate(zip(files, paths, strict=True))
        ]
        answers = list(symbolize(requests))
    finally:
        for file in files:
            file.close()
    assert {answer.failure for answer in answers} == {""}
    assert sum(1 for answer in answers for name in answer.names if name) > 50


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=30))
def test_mutated_files_never_break_the_caller(mutations: list[tuple[int, int]]) -> None:
    image = bytearray(GOOD)
    for place, value in mutations:
        image[place] = value
    first, second = symbolize([request(1, bytes(image)), request(2)])
    assert len(first.names) == 4
    assert second.names == NAMES
