"""CPU captures against programs whose truth is known, and against perf."""

import re
import shutil
import subprocess
from collections import Counter

import pytest

from pyprof.symbolize.frame import FrameKind

pytestmark = pytest.mark.bpf

SHARES = {"hot": 60.0, "warm": 30.0, "cool": 10.0}


def shares_of(stacks: list[tuple[list[str], int]]) -> dict[str, float]:
    """Return what percentage of the values has each of the functions of samples/shares.c."""
    counts: Counter[str] = Counter()
    for names, value in stacks:
        counts.update({name: value for name in SHARES if name in names})
    return {name: 100 * counts[name] / counts.total() for name in SHARES}


def assert_adds_up(profile) -> None:  # type: ignore[no-untyped-def]
    quality = profile.quality
    assert profile.total == quality.counted
    assert quality.counted + quality.idle + quality.excluded == quality.taken


def test_known_shares_within_3_points(capture, sample) -> None:  # type: ignore[no-untyped-def]
    captured = capture("-F", "199", "--", sample("shares"), "8")
    assert shares_of(captured.names("shares")) == pytest.approx(SHARES, abs=3)
    assert_adds_up(captured.profile)
    assert captured.profile.quality.losses == ()


def test_shares_agree_with_perf(capture, sample, background, tmp_path) -> None:  # type: ignore[no-untyped-def]
    if not shutil.which("perf"):
        pytest.skip("perf is not installed")
    process = background(sample("shares"), "30")
    data = str(tmp_path / "perf.data")
    perf = background(
        *("perf", "record", "-q", "-e", "cpu-clock", "-F", "199", "-g", "-p", str(process.pid)),
        *("-o", data, "--", "sleep", "6"),
        stderr=subprocess.DEVNULL,
    )
    captured = capture("-F", "199", "-p", str(process.pid), "6")
    perf.wait()
    text = subprocess.run(
        ["perf", "script", "-i", data, "--no-inline", "-F", "ip,sym"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    stacks = [(re.findall(r"^\s+\S+ (\S+)", part, re.MULTILINE), 1) for part in text.split("\n\n")]
    assert shares_of(captured.names("shares")) == pytest.approx(shares_of(stacks), abs=4)


def test_kernel_heavy_program_shows_the_kernel_below_the_system_call(capture) -> None:  # type: ignore[no-untyped-def]
    captured = capture(
        *("-F", "499", "--", "dd", "if=/dev/zero", "of=/dev/null", "bs=1M", "count=40000", "status=none")
    )
    stacks = captured.names("dd")
    total = sum(value for _, value in stacks)
    in_read = sum(value for names, value in stacks if "ksys_read" in names and "vfs_read" in names)
    assert total > 200
    assert in_read / total > 0.8
    assert all(
        names.index("ksys_read") < names.index("vfs_read") for names, _ in stacks if "vfs_read" in names
    )


def test_5000_distinct_stacks_and_not_one_lost(capture, sample) -> None:  # type: ignore[no-untyped-def]
    captured = capture("-F", "1000", "--", sample("many_stacks"), "5000", "15")
    paths = {
        "".join(name[0] for name in names if name in {"zero", "one"})
        for names, _ in captured.names("many_stacks")
    }
    complete = {path for path in paths if len(path) == 13}
    assert captured.profile.quality.losses == ()
    assert len(complete) > 4900
    assert_adds_up(captured.profile)


def test_full_stack_map_keeps_the_weight(capture, sample) -> None:  # type: ignore[no-untyped-def]
    captured = capture(
        *("-F", "1000", "--stack-storage-size", "64", "--", sample("many_stacks"), "2000", "3")
    )
    quality = captured.profile.quality
    lost = {loss.reason: loss.value for loss in quality.losses}
    noted = sum(
        value
        for names, value in [*captured.names("many_stacks"), *captured.names("")]
        if any(name.startswith("[lost: ") for name in names)
    )
    assert sum(lost.values()) > 100
    assert sum(lost.values()) <= captured.profile.total  # no sample is lost twice
    assert noted >= lost.get("count map full", 0)
    assert_adds_up(captured.profile)
    assert captured.result.returncode == 4
    assert "lost" in captured.result.stderr


@pytest.mark.parametrize("program", ["burst", "burst_static"])
def test_processes_of_20_ms_are_named_though_gone(program, capture, sample) -> None:  # type: ignore[no-untyped-def]
    storm = f"for i in $(seq 60); do {sample(program)} 20 & {sample(program)} 20; wait; done"
    captured = capture("-F", "997", "--", "sh", "-c", storm)
    frames = captured.profile.frames
    counted: Counter[str] = Counter()
    for one in captured.profile.samples:
        if one.comm == program:
            for index in one.stack:
                if frames[index].kind is FrameKind.USER:
                    counted["all"] += one.value
                    counted["with module"] += one.value * bool(frames[index].module)
                    counted["named"] += one.value * (not frames[index].name.startswith("["))
    assert counted["all"] > 1000
    assert counted["with module"] / counted["all"] >= 0.99
    if program == "burst_static":  # of the other, libc's local symbols are stripped
        assert counted["named"] / counted["all"] >= 0.95


def test_storm_of_processes_is_named_system_wide(capture, sample, background) -> None:  # type: ignore[no-untyped-def]
    background("sh", "-c", f"while :; do {sample('burst_static')} 20; done")
    captured = capture("-F", "997", "3")
    stacks = captured.names("burst_static")
    total = sum(value for _, value in stacks)
    named = sum(value for names, value in stacks if "burst_work" in names and "main" in names)
    assert total > 500
    assert named / total > 0.9


def test_hostile_thread_name_stays_one_line_and_one_element(pyprof, sample, tmp_path) -> None:  # type: ignore[no-untyped-def]
    name = "a;b\n\x1b</script>"[:15]
    folded = pyprof("cpu", "-f", "-F", "199", "--", sample("rename"), name, "2").stdout
    mine = [line for line in folded.splitlines() if line.startswith("a\\x3bb")]
    assert mine
    assert "\x1b" not in folded
    assert all(re.fullmatch(r".+ \d+", line) for line in folded.splitlines())
    svg = tmp_path / "x.svg"
    pyprof("cpu", "-o", str(svg), "-F", "199", "--", sample("rename"), name, "1")
    text = svg.read_text()
    assert "\x1b" not in text
    assert text.count("<script") == text.count("</script>") <= 1


def test_1000_hz_for_10_s_on_every_cpu_counts_every_tick(capture, background, sample) -> None:  # type: ignore[no-untyped-def]
    for cpu in range(2):
        background("taskset", "-c", str(cpu), sample("shares"), "30")
    quality = (captured := capture("-F", "1000", "10")).profile.quality
    assert_adds_up(captured.profile)
    assert quality.losses == ()
    assert quality.taken >= 0.95 * quality.expected
    assert quality.expected == pytest.approx(20_000, rel=0.1)


def test_pyprof_itself_is_left_out(capture, background, sample) -> None:  # type: ignore[no-untyped-def]
    background(sample("shares"), "10")
    captured = capture("-F", "999", "2")
    assert not [one for one in captured.profile.samples if one.comm == "pyprof"]
    assert captured.profile.quality.excluded > 0


def test_deleted_binary_is_still_named(capture, background, sample, tmp_path) -> None:  # type: ignore[no-untyped-def]
    program = tmp_path / "vanishing"
    shutil.copy(sample("shares"), program)
    process = background(str(program), "20")
    program.unlink()
    captured = capture("-F", "199", "-p", str(process.pid), "2")
    assert shares_of(captured.names("vanishing")) == pytest.approx(SHARES, abs=8)


def test_saved_addresses_get_their_names_later(pyprof, sample, tmp_path) -> None:  # type: ignore[no-untyped-def]
    raw = tmp_path / "raw.pb.gz"
    pyprof("cpu", "--no-symbols", "-o", str(raw), "-F", "199", "--", sample("shares"), "2")
    unnamed = pyprof("render", "--no-symbols", str(raw), "-f").stdout
    named = pyprof("render", str(raw), "-f").stdout
    assert ";[shares+0x" in unnamed
    assert "main;hot;spin" not in unnamed
    assert "main;hot;spin" in named
