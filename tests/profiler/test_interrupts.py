"""One signal ends a capture, two skip symbols, three abort; whoever was there before is put back."""

import select
import signal
from types import SimpleNamespace

import pytest

from pyprof.profiler import interrupts
from pyprof.profiler.interrupts import SIGNALS, Aborted, Interrupts, SymbolsSkipped

pytestmark = pytest.mark.usefixtures("signals_kept", "nothing_is_left")


class Clock(SimpleNamespace):
    """A clock that stands until the test moves it."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(interrupts, "time", clock)
    return clock


def is_readable(entered: Interrupts) -> bool:
    return bool(select.select([entered.fileno()], [], [], 0)[0])


@pytest.mark.parametrize("number", SIGNALS)
def test_first_signal_is_noted_and_makes_the_descriptor_readable(number: signal.Signals) -> None:
    with Interrupts() as entered:
        assert not is_readable(entered)
        signal.raise_signal(number)
        assert entered.received == [number]
        assert is_readable(entered)


def test_same_signal_within_50_ms_is_the_same_key(clock: Clock) -> None:
    with Interrupts() as entered:
        signal.raise_signal(signal.SIGINT)
        clock.now_s += 0.049
        signal.raise_signal(signal.SIGINT)
        assert entered.received == [signal.SIGINT]


def test_same_signal_after_50_ms_is_a_second_one(clock: Clock) -> None:
    with Interrupts() as entered:
        signal.raise_signal(signal.SIGINT)
        clock.now_s += 0.051
        signal.raise_signal(signal.SIGINT)
        assert entered.received == [signal.SIGINT, signal.SIGINT]


def test_held_key_stays_one_signal(clock: Clock) -> None:
    with Interrupts() as entered:
        for _ in range(20):
            signal.raise_signal(signal.SIGINT)
            clock.now_s += 0.03
        assert entered.received == [signal.SIGINT]


@pytest.mark.usefixtures("clock")
def test_another_signal_is_no_echo() -> None:
    with Interrupts() as entered:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert entered.received == [signal.SIGINT, signal.SIGTERM]


def test_first_signal_may_come_at_any_reading_of_the_clock(clock: Clock) -> None:
    clock.now_s = -1.0
    with Interrupts() as entered:
        signal.raise_signal(signal.SIGINT)
        assert entered.received == [signal.SIGINT]


def test_third_signal_aborts(clock: Clock) -> None:
    with Interrupts() as entered:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
            clock.now_s += 1
        with pytest.raises(Aborted):
            signal.raise_signal(signal.SIGINT)
        assert len(entered.received) == 3


def test_abort_is_not_caught_by_except_exception() -> None:
    assert not issubclass(Aborted, Exception)


def test_symbols_are_not_skipped_when_nothing_comes() -> None:
    with Interrupts() as entered, entered.skipping_symbols():
        pass
    assert entered.received == []


@pytest.mark.usefixtures("clock")
def test_symbols_are_not_skipped_for_the_signal_that_ended_the_capture() -> None:
    reached = False
    with Interrupts() as entered:
        signal.raise_signal(signal.SIGINT)
        with entered.skipping_symbols():
            reached = True
    assert reached


@pytest.mark.usefixtures("clock")
def test_signal_during_symbols_skips_them() -> None:
    with Interrupts() as entered:
        with pytest.raises(SymbolsSkipped), entered.skipping_symbols():
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # symbols are behind us: only noted
        assert entered.received == [signal.SIGTERM, signal.SIGINT]


def test_second_signal_before_symbols_skips_them(clock: Clock) -> None:
    reached = False
    with Interrupts() as entered:
        signal.raise_signal(signal.SIGINT)
        clock.now_s += 1
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(SymbolsSkipped), entered.skipping_symbols():
            reached = True
    assert not reached


def test_third_signal_aborts_symbols_too(clock: Clock) -> None:
    with Interrupts() as entered:
        signal.raise_signal(signal.SIGINT)
        clock.now_s += 1
        with pytest.raises(SymbolsSkipped), entered.skipping_symbols():
            signal.raise_signal(signal.SIGINT)
        clock.now_s += 1
        with pytest.raises(Aborted):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_restored() -> None:
    def mine(number: int, frame: object) -> None:
        raise AssertionError(number)

    for number, handler in zip(SIGNALS, (mine, signal.SIG_DFL, signal.default_int_handler), strict=True):
        signal.signal(number, handler)
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) is not mine
    assert [signal.getsignal(number) for number in SIGNALS] == [
        mine,
        signal.SIG_DFL,
        signal.default_int_handler,
    ]


def test_handlers_are_restored_after_an_error() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ZeroDivisionError), Interrupts():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_ignored_signal_stays_ignored(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    with Interrupts() as entered:
        signal.raise_signal(number)
        assert entered.received == []
        assert signal.getsignal(number) is signal.SIG_IGN
    assert signal.getsignal(number) is signal.SIG_IGN
