"""Filters run in the kernel: what is outside them is in no sample."""

import os
from pathlib import Path

import pytest

from pyprof.symbolize.frame import FrameKind

pytestmark = pytest.mark.bpf

# mypy: disable-error-code="no-untyped-def"


def comms(captured) -> set[str]:
    return {one.comm for one in captured.profile.samples}


def kinds(captured) -> set[FrameKind]:
    frames = captured.profile.frames
    return {frames[index].kind for one in captured.profile.samples for index in one.stack}


def test_process_filter_keeps_only_that_process(capture, background, sample) -> None:
    wanted = background(sample("shares"), "20")
    background(sample("burst"), "20000")
    captured = capture("-F", "499", "-p", str(wanted.pid), "1")
    assert {one.pid for one in captured.profile.samples} == {wanted.pid}
    assert captured.profile.total > 100


def test_thread_filter_keeps_only_that_thread(capture, background, sample) -> None:
    wanted = background(sample("shares"), "20")
    background(sample("shares"), "20")
    captured = capture("-F", "499", "--threads", "-t", str(wanted.pid), "1")
    assert {one.tid for one in captured.profile.samples} == {wanted.pid}


def test_name_filter_keeps_only_that_name(capture, background, sample) -> None:
    background(sample("shares"), "20")
    background(sample("burst"), "20000")
    assert comms(capture("-F", "499", "--comm", "burst", "1")) == {"burst"}


def test_cpu_filter_samples_only_that_cpu(capture, background, sample) -> None:
    background("taskset", "-c", "0", sample("shares"), "20")
    background("taskset", "-c", "1", sample("burst"), "20000")
    captured = capture("-F", "499", "-C", "1", "1")
    assert captured.profile.provenance.cpus == 1
    assert "burst" in comms(captured)
    assert "shares" not in comms(captured)


def test_kernel_threads_only(capture, background) -> None:
    background("sh", "-c", "while :; do sync; echo > /dev/null; done")
    captured = capture("-F", "999", "-k", "1")
    assert FrameKind.USER not in kinds(captured)


@pytest.mark.parametrize(("flag", "absent"), [("-U", FrameKind.KERNEL), ("-K", FrameKind.USER)])
def test_one_kind_of_stack_only(capture, flag, absent) -> None:
    captured = capture(
        *(
            "-F",
            "499",
            flag,
            "--",
            "dd",
            "if=/dev/zero",
            "of=/dev/null",
            "bs=4k",
            "count=300000",
            "status=none",
        )
    )
    assert absent not in kinds(captured)
    assert captured.profile.total > 20


def test_idle_is_counted_on_request(capture) -> None:
    assert any(comm.startswith("swapper") for comm in comms(capture("-F", "199", "-I", "1")))
    assert not any(comm.startswith("swapper") for comm in comms(capture("-F", "199", "1")))


def test_cgroup_filter_keeps_its_descendants(capture, background, sample) -> None:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    places = [fields[1] for fields in mounts if fields[2] == "cgroup2"]
    if not places:
        pytest.skip("no cgroup of version 2 is mounted")
    parent = Path(places[0]) / f"pyprof-test-{os.getpid()}"
    child = parent / "child"
    child.mkdir(parents=True)
    try:
        inside = background(sample("shares"), "20")
        background(sample("burst"), "20000")
        (child / "cgroup.procs").write_text(str(inside.pid))
        captured = capture("-F", "499", "--cgroup", str(parent), "1")
        inside.kill()
        inside.wait()
    finally:
        child.rmdir()
        parent.rmdir()
    assert comms(captured) == {"shares"}


def test_folder_that_is_no_cgroup_is_refused(pyprof, tmp_path) -> None:
    result = pyprof("cpu", "--cgroup", str(tmp_path), "-f", "1")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "is not a cgroup of version 2" in result.stderr


def test_pids_are_those_of_the_callers_namespace(pyprof_path, pyprof, sample) -> None:
    script = f"{sample('shares')} 20 & sleep 0.2; {pyprof_path} cpu -F 499 --pids -f -p $! 1; kill $!"
    result = pyprof("--version")  # the command runs at all
    assert result.returncode == 0
    import subprocess

    inside = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "shares-2;" in inside.stdout, inside.stderr
    assert "main;hot;spin" in inside.stdout
