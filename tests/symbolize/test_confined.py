"""A child that may do nothing: what it says is read, however it ends, and it leaves nothing behind."""

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pyprof.symbolize import sandbox
from pyprof.symbolize.confined import Confined, EndedError, Limits

pytestmark = pytest.mark.usefixtures("nothing_is_left")

LIMITS = Limits(cpu_s=10)
LONG_S = 30.0  # a test that waits for it has failed

Serve = Callable[[socket.socket], object]


class Doing:
    """A job that is one function."""

    def __init__(self, serve: Serve, load: Callable[[], object] = int) -> None:
        self._load = load
        self._serve = serve

    def load(self) -> None:
        self._load()

    def serve(self, parent: socket.socket) -> None:
        self._serve(parent)


def child(serve: Serve, load: Callable[[], object] = int, keep: tuple[int, ...] = ()) -> Confined:
    return Confined("worker", Doing(serve, load), keep, LIMITS)


def saying(*pieces: bytes, then: Callable[[], object] = int) -> Serve:
    def serve(parent: socket.socket) -> None:
        for piece in pieces:
            parent.sendall(piece)
        then()

    return serve


def sleep() -> None:
    time.sleep(LONG_S)


def soon() -> float:
    return time.monotonic() + LONG_S


def wait_readable(worker: Confined) -> None:
    assert select.select([worker.socket], [], [], LONG_S)[0]


def reason(worker: Confined) -> str:
    """Return why a worker ended, once it has."""
    with pytest.raises(EndedError) as caught:
        worker.read(1, soon())
    assert str(caught.value) == worker.ended
    return worker.ended


def test_answers_are_read_in_pieces_of_any_size() -> None:
    with child(saying(b"one", b"two" * 1000, then=sleep)) as worker:
        assert worker.read(0, soon()) == b""
        assert worker.read(4, soon()) == b"onet"
        assert worker.read(2999, soon()) == (b"two" * 1000)[1:]
        assert worker.ended == ""


def test_child_hears_its_parent() -> None:
    with child(lambda parent: parent.sendall(parent.recv(10).upper())) as worker:
        worker.socket.sendall(b"hello")
        assert worker.read(5, soon()) == b"HELLO"


def test_what_was_said_before_the_end_is_read() -> None:
    with child(saying(b"last words")) as worker:
        assert worker.read(10, soon()) == b"last words"
        assert reason(worker) == "worker crashed"


def raise_(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (int, "worker crashed"),
        (lambda: raise_(KeyError("deep inside")), "worker crashed"),
        (lambda: raise_(SystemExit(0)), "worker crashed"),
        (lambda: raise_(KeyboardInterrupt()), "worker crashed"),
        (lambda: raise_(MemoryError()), "worker ran out of memory"),
        (lambda: bytes(1 << 40), "worker ran out of memory"),
        (lambda: os._exit(3), "worker crashed"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "worker was ended by signal 11"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "worker was ended by signal 9"),
        (lambda: os.kill(os.getpid(), signal.SIGXCPU), "worker ran out of time"),
    ],
)
def test_end_has_a_reason(end: Callable[[], object], expected: str) -> None:
    with child(saying(then=end)) as worker:
        assert reason(worker) == expected
        assert reason(worker) == expected  # and keeps it
        assert not worker.is_unconfined


def test_child_that_cannot_be_confined_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise sandbox.ConfinementError

    monkeypatch.setattr(sandbox, "confine", refuse)
    with child(saying(b"secret")) as worker:
        assert reason(worker) == "worker could not give up its privileges"
        assert worker.is_unconfined


def test_child_that_cannot_load_serves_nothing() -> None:
    with child(saying(b"secret"), load=lambda: raise_(ImportError("gone"))) as worker:
        assert reason(worker) == "worker could not give up its privileges"


def test_child_that_is_late_is_ended() -> None:
    with child(saying(b"one", then=sleep)) as worker:
        began_s = time.monotonic()
        with pytest.raises(EndedError, match=r"^worker ran out of time$"):
            worker.read(4, began_s + 0.1)
        assert 0.1 <= time.monotonic() - began_s < LONG_S / 2
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def test_deadline_that_has_passed_still_reads_what_is_there() -> None:
    with child(saying(b"one", then=sleep)) as worker:
        wait_readable(worker)
        assert worker.read(3, 0.0) == b"one"
        with pytest.raises(EndedError):
            worker.read(1, 0.0)


def test_kill_ends_it_for_the_reason_that_is_given() -> None:
    with child(saying(then=sleep)) as worker:
        status = worker.kill(reason="worker answered nonsense")
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert worker.kill() == 0
        assert reason(worker) == "worker answered nonsense"


def test_nothing_has_arrived_from_a_child_that_is_silent() -> None:
    with child(saying(then=sleep)) as worker:
        assert worker.arrived(100) == b""


def test_what_has_arrived_stays_until_it_is_taken() -> None:
    with child(saying(b"one", then=sleep)) as worker:
        wait_readable(worker)
        assert worker.arrived(100) == b"one"
        buffer = worker.arrived(100)
        del buffer[:2]
        assert worker.arrived(100) == b"e"
        assert worker.read(1, soon()) == b"e"


def test_what_arrived_before_the_end_comes_before_its_reason() -> None:
    with child(saying(b"last words")) as worker:
        assert select.select([worker._process], [], [], LONG_S)[0]
        assert worker.arrived(100) == b"last words"
        assert worker.arrived(100) == b"last words"
        worker.arrived(100).clear()
        with pytest.raises(EndedError, match=r"^worker crashed$"):
            worker.arrived(100)


def test_child_that_talks_without_end_takes_no_memory() -> None:
    def chatter(parent: socket.socket) -> None:
        while True:
            parent.sendall(bytes(1 << 16))

    with child(chatter) as worker:
        wait_readable(worker)
        limit = 1 << 18
        for _ in range(20):
            assert len(worker.arrived(limit)) < limit + (1 << 20)


def test_child_that_did_not_listen_is_no_other_end() -> None:
    # a socket that is closed with unread data resets the connection
    with child(lambda parent: select.select([parent], [], [], LONG_S)) as worker:
        worker.socket.sendall(b"unread")
        assert reason(worker) == "worker crashed"


def test_error_in_the_parent_ends_the_child() -> None:
    worker = child(saying(then=sleep))
    folder = Path(f"/proc/{worker._pid}")
    with pytest.raises(ZeroDivisionError), worker:
        raise ZeroDivisionError
    assert not folder.exists()


def test_only_the_descriptors_that_are_kept_are_there() -> None:
    with open("/proc/self/stat", "rb") as kept, open("/proc/self/stat", "rb") as other:
        numbers = kept.fileno(), other.fileno()

        def look(parent: socket.socket) -> None:
            is_there = [Path(f"/proc/self/fd/{number}").is_symlink() for number in numbers]
            parent.sendall(bytes([os.pread(numbers[0], 1, 0) != b"", *is_there]))

        with child(look, keep=(kept.fileno(),)) as worker:
            assert worker.read(3, soon()) == bytes([True, True, False])


def test_child_is_ended_where_the_kernel_reaps_it() -> None:
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with child(saying(b"one")) as worker:
            assert worker.read(3, soon()) == b"one"
            assert reason(worker) == "worker crashed"
        with child(saying(then=sleep)) as worker:
            pass
    finally:
        signal.signal(signal.SIGCHLD, old)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_the_parent_do_not_end_the_child(number: int) -> None:
    def serve(parent: socket.socket) -> None:
        os.kill(os.getpid(), number)
        parent.sendall(b"alive")
        parent.recv(1)

    calls: list[int] = []
    old = signal.signal(number, lambda *_: calls.append(number))
    try:
        with child(serve) as worker:
            assert worker.read(5, soon()) == b"alive"
            os.kill(worker.pid, number)  # as the terminal sends Ctrl-C to the whole group
            assert worker.arrived(100) == b""
            assert os.WTERMSIG(worker.kill()) == signal.SIGKILL
    finally:
        signal.signal(number, old)
    assert calls == []


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGALRM, signal.SIGQUIT])
def test_other_signals_have_their_default_in_the_child(number: int) -> None:
    old = signal.signal(number, signal.SIG_IGN)
    try:
        with child(saying(then=lambda: os.kill(os.getpid(), number))) as worker:
            assert reason(worker) == f"worker was ended by signal {number:d}"
    finally:
        signal.signal(number, old)


def test_process_id_is_the_childs_until_it_is_reaped() -> None:
    def serve(parent: socket.socket) -> None:
        parent.sendall(os.getpid().to_bytes(4, "little"))
        parent.recv(1)

    with child(serve) as worker:
        assert worker.pid == int.from_bytes(worker.read(4, soon()), "little") != 0
        worker.kill()
        assert worker.pid == 0


def test_signals_of_the_parent_are_let_through_again() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with child(saying(then=sleep)):
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.parametrize("call", ["fork", "pidfd_open"])
def test_child_that_cannot_start_leaves_nothing(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(24, "Too many open files")

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="Too many open files"):
        child(saying(then=sleep))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
