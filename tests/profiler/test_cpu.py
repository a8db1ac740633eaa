"""What a CPU capture says of its own gaps, and the periods it chooses."""

import pytest

from pyprof.profiler.cpu import default_period, gap_notes, has_rate
from pyprof.profiler.engine import Stats
from pyprof.profiler.process_table import ProcessTable
from pyprof.profiler.sideband import ExitEvent, ForkEvent, LostEvent

NONE = Stats(*(0 for _ in Stats._fields))


def test_capture_without_gaps_has_no_notes() -> None:
    assert gap_notes(ProcessTable(), NONE, 0) == []


def test_each_gap_is_told_with_its_number() -> None:
    table = ProcessTable(max_ended=1)
    table.apply(LostEvent(1, 3))
    for pid in (10, 11, 12):
        table.apply(ForkEvent(pid, pid, 1))
        table.apply(ExitEvent(pid, pid))
    notes = gap_notes(table, NONE._replace(execs_missed=4, forks_missed=5), 6)
    assert [note.split(":")[0] for note in notes] == [
        "3 process events were lost",
        "2 ended processes were forgotten to bound memory",
        "4 execs could not be noted",
        "5 child processes could not be followed",
        "6 binaries could not be held open",
    ]


@pytest.mark.parametrize(
    ("event", "period"), [("cpu-clock", 20_408_163), ("page-faults", 1), ("cache-misses", 100_000)]
)
def test_period_without_c(event: str, period: int) -> None:
    assert default_period(event, 49) == period
    assert has_rate(event) == (event == "cpu-clock")
