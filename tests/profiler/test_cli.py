"""The command line: what it refuses, with which words and exit code, and what reaches a capture."""

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from pyprof.profiler import output, session
from pyprof.profiler.cli import commands, exit_code
from pyprof.profiler.errors import ExitCode, ProfilerError
from pyprof.profiler.settings import Settings, Targets
from pyprof.render.pprof_reader import decode_pprof

Run = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., str]

USAGE_ERRORS = {
    ("cpu", "-F", "99", "-c", "5"): "-F and -c exclude each other",
    ("cpu", "-U", "-K"): "-U and -K exclude each other",
    ("cpu", "-u", "-k"): "-u and -k exclude each other",
    ("cpu", "-p", "1", "-t", "2"): "-p and -t exclude each other",
    ("cpu", "-p", "1", "--", "true"): "a command is profiled with its children",
    ("cpu", "-t", "1", "--", "true"): "a command is profiled with its children",
    ("cpu", "-I", "--", "true"): "a command is profiled with its children",
    ("cpu", "--"): "no command after `--`",
    ("cpu", "5", "--"): "no command after `--`",
    ("cpu", "5", "--duration", "5"): "DURATION was given twice",
    ("cpu", "5", "6"): "unexpected extra argument",
    ("cpu", "0"): "'0' is not a length of time",
    ("cpu", "0.0s"): "'0.0s' is not a length of time",
    ("cpu", "1e3"): "'1e3' is not a length of time",
    ("cpu", "5 s"): "'5 s' is not a length of time",
    ("cpu", "nan"): "'nan' is not a length of time",
    ("cpu", "1\n"): r"'1\n' is not a length of time",
    ("cpu", "--duration", "soon"): "'soon' is not a length of time",
    ("cpu", "-p", "0"): "'0' is not a list of ids",
    ("cpu", "-p", "1,"): "'1,' is not a list of ids",
    ("cpu", "-p", "1-3"): "'1-3' is not a list of ids",
    ("cpu", "-p", "-1"): "'-1' is not a list of ids",
    ("cpu", "-p", "9999999999"): "'9999999999' is not a list of ids",
    ("cpu", "-p", "\x1b[2J"): r"'\x1b[2J' is not a list of ids",
    ("cpu", "-t", "main"): "'main' is not a list of ids",
    ("cpu", "-C", "x"): "'x' is not a list of CPUs",
    ("cpu", "-C", "0-"): "'0-' is not a list of CPUs",
    ("cpu", "-C", ""): "'' is not a list of CPUs",
    ("cpu", "--comm", "a" * 16): "--comm takes at most 15 bytes",
    ("cpu", "--comm", "ü" * 8): "--comm takes at most 15 bytes",
    ("cpu", "-e", "nope"): "unknown event 'nope'; choose one of branch-misses, ",
    ("cpu", "-F", "0"): "0 is not in the range",
    ("cpu", "-F", "99", "-e", "page-faults"): "page-faults has no rate: give -c",
    ("cpu", "-c", "9999"): "-c 9999: the kernel's clocks tick every 10000 ns at most",
    ("cpu", "-c", str(1 << 63)): "is not in the range",
    ("cpu", "721h"): "'721h' is not a length of time",
    ("cpu", "9" * 400): "is not a length of time",
    ("cpu", "-F", "fast"): "'fast' is not a valid integer range",
    ("cpu", "-c", "0"): "0 is not in the range",
    ("cpu", "--max-depth", "128"): "128 is not in the range",
    ("cpu", "--stack-storage-size", "1"): "1 is not in the range",
    ("cpu", "--width", "1"): "1 is not in the range",
    ("cpu", "--engine", "ftrace"): "'ftrace' is not one of",
    ("cpu", "--format", "png"): "'png' is not one of",
    ("cpu", "-f", "--format", "svg"): "-f means --format folded",
    ("cpu", "-o", "x.png"): "no format has the ending of x.png; use one of .svg ",
    ("cpu", "-o", ""): "no format has the ending of ",
    ("cpu", "-o"): "requires an argument",
    ("cpu", "--nope"): "No such option '--nope'",
    ("render",): "Missing argument 'FILE'",
    ("render", "a", "b"): "unexpected extra argument",
    ("render", "a", "-o", "x.png"): "no format has the ending of x.png",
    ("top",): "Missing argument 'FILE'",
    ("top", "a", "-n", "0"): "0 is not in the range",
    ("top", "a", "--by", "name"): "'name' is not one of",
    ("nope",): "No such command 'nope'",
    ("doctor", "me"): "unexpected extra argument",
}


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, signals_kept: None) -> None:
    """Keep the environment, the current folder and the handlers of signals as they are."""
    monkeypatch.setenv("DEBUGINFOD_URLS", "https://example.invalid")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Return the settings of every capture that begins; each ends at once with exit code 77."""
    seen: list[Settings] = []

    def begin(settings: Settings, engine: object) -> None:
        seen.append(settings)
        raise ProfilerError("no capture in this test")

    monkeypatch.setattr(session, "CpuSession", begin)
    return seen


@pytest.fixture
def settings_of(begun: list[Settings]) -> Callable[..., Settings]:
    """Return a function from the arguments of `pyprof cpu` to the settings of its capture."""

    def settings(*arguments: str) -> Settings:
        assert exit_code(["cpu", *arguments]) == ExitCode.CANNOT_PROFILE
        return begun.pop()

    return settings


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], begun: list[Settings]) -> Refused:
    """Return a function that runs a command line, expects its failure and gives the one line about it."""

    def run(*arguments: str, code: int = ExitCode.USAGE) -> str:
        assert exit_code(list(arguments)) == code
        assert begun == []
        captured = capsys.readouterr()
        assert captured.out == ""
        (message,) = captured.err.splitlines()
        assert message.startswith("pyprof: ")
        return message.removeprefix("pyprof: ")

    return run


@pytest.fixture
def folded(tmp_path: Path) -> str:
    """Return the path of a small profile."""
    (tmp_path / "x.folded").write_text("prog;main;work 5\nprog;main;rest 3\n")
    return str(tmp_path / "x.folded")


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that runs a command line with a terminal as its standard output."""

    def run(*arguments: str) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(sys.stdout, "isatty", lambda: True)
            return exit_code(list(arguments))

    return run


@pytest.mark.parametrize(("arguments", "words"), USAGE_ERRORS.items(), ids=lambda one: repr(one)[:60])
def test_usage_error_is_told_in_a_line_and_ends_with_2(
    arguments: tuple[str, ...], words: str, refused: Refused
) -> None:
    assert words in refused(*arguments)


def test_usage_error_names_the_help_of_its_command(refused: Refused) -> None:
    assert refused("top", "a", "b").endswith("; see pyprof top --help")
    assert refused("nope").endswith("; see pyprof --help")


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code([]) == ExitCode.USAGE
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize("cpus", ["1-0", "3-1,2-0"])
def test_cpu_range_that_goes_backwards_is_a_usage_error(cpus: str, refused: Refused) -> None:
    assert "is not a list of CPUs" in refused("cpu", "-C", cpus)


def test_name_of_any_bytes_is_a_name(settings_of: Callable[..., Settings]) -> None:
    assert settings_of("--comm", "\udcff").targets.comm == "\udcff"


@pytest.mark.parametrize("command", [(), ("cpu",), ("render",), ("top",), ("doctor",)])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_goes_to_standard_output(
    flag: str, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code([*command, flag]) == ExitCode.DONE
    captured = capsys.readouterr()
    assert captured.out.startswith(" ".join(["Usage: pyprof", *command]))
    assert captured.err == ""


def test_help_of_every_option_is_there() -> None:
    for command in commands.commands.values():
        for one in command.params:
            assert not isinstance(one, click.Option) or one.hidden or one.help, (command.name, one.name)


def test_version_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["--version"]) == ExitCode.DONE
    assert capsys.readouterr().out.startswith("pyprof ")


def test_capture_without_options_samples_everything_at_49_hz(settings_of: Callable[..., Settings]) -> None:
    assert settings_of() == Settings(period=20_408_163, frequency_hz=49)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("0.5", 0.5), ("500ms", 0.5), ("2s", 2), ("2m", 120), ("1.5h", 5400), ("007", 7)],
)
@pytest.mark.parametrize("option", [(), ("--duration",)])
def test_duration_is_read(
    text: str, seconds: float, option: tuple[str, ...], settings_of: Callable[..., Settings]
) -> None:
    assert settings_of(*option, text).duration_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("arguments", "targets"),
    [
        (("-p", "4057"), Targets(pids=(4057,))),
        (("--pid", "1,2"), Targets(pids=(1, 2))),
        (("-t", "3,4"), Targets(tids=(3, 4))),
        (("-L", "3"), Targets(tids=(3,))),
        (("-C", "0-2,8"), Targets(cpus=(0, 1, 2, 8))),
        (("--comm", "ü" * 7 + "a"), Targets(comm="ü" * 7 + "a")),
        (("--cgroup", "/c", "-u"), Targets(cgroup="/c", user_threads=True)),
        (("-k", "-I"), Targets(kernel_threads=True, idle=True)),
        (("-g", "--all-cpus"), Targets()),
    ],
)
def test_targets_are_read(
    arguments: tuple[str, ...], targets: Targets, settings_of: Callable[..., Settings]
) -> None:
    assert settings_of(*arguments).targets == targets


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        (("-F", "100"), {"period": 10_000_000, "frequency_hz": 100}),
        (("-c", "10000"), {"period": 10000, "frequency_hz": 0}),
        (("-e", "page-faults"), {"period": 1, "frequency_hz": 0, "event": "page-faults"}),
        (("-U",), {"kernel_stacks": False}),
        (("-K",), {"user_stacks": False}),
        (("--threads",), {"per_thread": True}),
        (("--max-depth", "5"), {"max_depth": 5}),
        (("--stack-storage-size", "4096"), {"stack_entries": 4096}),
    ],
)
def test_options_reach_the_settings(
    arguments: tuple[str, ...], changes: dict[str, object], settings_of: Callable[..., Settings]
) -> None:
    settings = settings_of(*arguments)
    assert {name: getattr(settings, name) for name in changes} == changes


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("--", "make"), ("make",)),
        (("5", "--", "make", "-p", "1", "--", "all"), ("make", "-p", "1", "--", "all")),
        (("--", "--help"), ("--help",)),
        (("-u", "--", "sh", "-c", "exit 3"), ("sh", "-c", "exit 3")),
    ],
)
def test_words_after_two_dashes_are_the_command(
    arguments: tuple[str, ...], command: tuple[str, ...], settings_of: Callable[..., Settings]
) -> None:
    assert settings_of(*arguments).command == command


@pytest.mark.usefixtures("begun")
def test_error_shows_its_details_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def begin(settings: Settings, engine: object) -> None:
        raise ProfilerError("refused", detail="libbpf: first\nlibbpf: second\n")

    monkeypatch.setattr(session, "CpuSession", begin)
    assert exit_code(["cpu"]) == ExitCode.CANNOT_PROFILE
    assert capsys.readouterr().err == "pyprof: refused\n"
    assert exit_code(["cpu", "--debug"]) == ExitCode.CANNOT_PROFILE
    assert capsys.readouterr().err == "pyprof: refused\nlibbpf: first\nlibbpf: second\n"


@pytest.mark.parametrize("place", ["absent/x.svg", "x.folded/x.svg", "folder.svg", "fifo.svg", "open/x.svg"])
def test_place_that_cannot_be_written_ends_before_the_capture(
    place: str, folded: str, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "folder.svg").mkdir()
    os.mkfifo(tmp_path / "fifo.svg")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert refused("cpu", "-o", place, "1h", code=ExitCode.OUTPUT).startswith(f"cannot write {place}: ")


@pytest.mark.usefixtures("as_root")
def test_device_cannot_be_written(refused: Refused) -> None:
    message = refused("cpu", "--format", "svg", "-o", "/dev/full", "1h", code=ExitCode.OUTPUT)
    assert message == "cannot write /dev/full: it is not a regular file; use -o -"


@pytest.mark.parametrize("arguments", [(), ("--format", "pprof"), ("--format", "svg")])
def test_current_folder_that_cannot_be_written_ends_before_the_capture(
    arguments: tuple[str, ...], tmp_path: Path, begun: list[Settings], on_terminal: Callable[..., int]
) -> None:
    tmp_path.chmod(0o777)
    assert on_terminal("cpu", *arguments, "1h") == ExitCode.OUTPUT
    assert begun == []


def test_current_folder_is_no_matter_when_nothing_is_written_there(
    tmp_path: Path, begun: list[Settings], on_terminal: Callable[..., int]
) -> None:
    tmp_path.chmod(0o777)
    assert on_terminal("cpu", "-f", "1h") == ExitCode.CANNOT_PROFILE
    assert len(begun) == 1


def test_binary_format_on_a_terminal_is_refused_before_the_capture(
    begun: list[Settings], on_terminal: Callable[..., int]
) -> None:
    assert on_terminal("cpu", "--format", "pprof", "-o", "-", "1h") == ExitCode.USAGE
    assert begun == []


@pytest.mark.parametrize(("name", "ending"), [("svg", ".svg"), ("pprof", ".pb.gz")])
def test_terminal_gets_a_new_file_and_the_hottest_functions(  # noqa: PLR0917 - fixtures
    name: str,
    ending: str,
    folded: str,
    tmp_path: Path,
    on_terminal: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert on_terminal("render", folded, "--format", name) == ExitCode.DONE
    (written,) = tmp_path.glob("pyprof-*")
    assert written.name.endswith(ending)
    captured = capsys.readouterr()
    assert "work" in captured.out
    assert captured.err.endswith(f"pyprof: wrote {written.name}\n")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x1f\x8b", id="only a magic number"),
        pytest.param(b"\x1f\x8b" + bytes(100), id="broken gzip"),
        pytest.param(gzip.compress(b"\xff" * 100), id="no protobuf"),
        pytest.param(gzip.compress(b"profile")[:-9], id="cut gzip"),
        pytest.param(b"\x7fELF\x00\x00\xff\xfe", id="an ELF file"),
        pytest.param(b"main;work without a value\n", id="no value"),
        pytest.param(b"<svg></svg>\n", id="a picture"),
    ],
)
@pytest.mark.parametrize("command", ["render", "top"])
def test_input_that_is_no_profile_ends_with_66(
    command: str, data: bytes, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "x").write_bytes(data)
    assert refused(command, "x", code=ExitCode.INPUT).startswith("cannot read x: ")


@pytest.mark.parametrize("command", ["render", "top"])
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("absent", "No such file or directory"),
        (".", "Is a directory"),
        ("x.folded/x", "Not a directory"),
        ("n" * 300, "File name too long"),
    ],
)
def test_input_that_cannot_be_opened_ends_with_66(
    path: str, reason: str, command: str, folded: str, refused: Refused
) -> None:
    message = refused(command, path, code=ExitCode.INPUT)
    assert message == f"cannot read {path}: {reason}; give a saved profile"


@pytest.mark.parametrize("command", ["render", "top"])
def test_input_that_is_too_large_is_not_read(command: str, tmp_path: Path, refused: Refused) -> None:
    with open(tmp_path / "x", "wb") as file:
        file.truncate((1 << 30) + 1)  # takes no room
    assert "larger than 1 GiB" in refused(command, "x", code=ExitCode.INPUT)


def test_hostile_path_of_an_input_reaches_no_terminal(refused: Refused) -> None:
    message = refused("top", "/nonexistent/\x1b[2J\n\udcff", code=ExitCode.INPUT)
    assert r"/nonexistent/\x1b[2J\x0a\xff" in message


@pytest.mark.parametrize(
    ("path", "code"), [("/nonexistent/\x1b[2J\n.svg", ExitCode.OUTPUT), ("\x1b[2J\n.png", ExitCode.USAGE)]
)
def test_hostile_path_of_an_output_reaches_no_terminal(path: str, code: int, refused: Refused) -> None:
    message = refused("cpu", "-o", path, code=code)
    assert r"\x1b[2J" in message
    assert message.isprintable()


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("y.svg", b"<?xml"),
        ("y.folded", b"prog;main;rest 3\n"),
        ("y.pb.gz", b"\x1f\x8b"),
        ("y.pprof", b"\x1f\x8b"),
        ("y.txt", b""),
        ("y.json", b"{"),
    ],
)
def test_ending_of_the_output_chooses_the_format(
    name: str, begins: bytes, folded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(["render", folded, "-o", name]) == ExitCode.DONE
    assert (tmp_path / name).read_bytes().lstrip().startswith(begins)
    captured = capsys.readouterr()
    assert captured.out == f"{name}\n"
    assert captured.err.endswith(f"pyprof: wrote {name}\n")


def test_format_that_is_named_wins_over_the_ending(folded: str, tmp_path: Path) -> None:
    assert exit_code(["render", folded, "-q", "--format", "folded", "-o", "y.svg"]) == ExitCode.DONE
    assert (tmp_path / "y.svg").read_bytes() == b"prog;main;rest 3\nprog;main;work 5\n"


def test_quiet_render_says_nothing_but_the_result(folded: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["render", folded, "-q"]) == ExitCode.DONE
    assert capfd.readouterr() == ("prog;main;rest 3\nprog;main;work 5\n", "")


def test_top_orders_the_functions_of_a_profile(folded: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["top", folded, "-n", "1"]) == ExitCode.DONE
    assert "work" in capsys.readouterr().out
    assert exit_code(["top", folded, "--by", "total", "--json"]) == ExitCode.DONE
    assert "main" in json.dumps(json.loads(capsys.readouterr().out))


def test_profile_that_fits_no_disk_is_kept_elsewhere(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rescued").mkdir()
    monkeypatch.setattr(output.tempfile, "tempdir", str(tmp_path / "rescued"))
    lines = [f"prog;{'f' * 60}{number} {number + 1}\n" for number in range(2000)]
    (tmp_path / "large.folded").write_text("".join(lines))
    code = exit_code(["render", str(tmp_path / "large.folded"), "-o", str(small_disk / "x.folded")])
    assert code == ExitCode.OUTPUT
    (kept_path,) = (tmp_path / "rescued").iterdir()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pyprof: disk full writing {small_disk}/x.folded: ")
    assert line.endswith(f"; the profile is in {kept_path} (pyprof render {kept_path} -o x.svg)")
    assert decode_pprof(kept_path.read_bytes()).total == sum(range(2001))


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("command", [("render", "-f"), ("top",)])
def test_reader_of_the_pipe_that_has_gone_is_a_quiet_141(
    command: tuple[str, ...], folded: str, pyprof_path: str
) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        result = subprocess.run(
            [pyprof_path, *command, folded], check=False, stdout=write_end, stderr=subprocess.PIPE
        )
    finally:
        os.close(write_end)
    assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.parametrize("command", [("render", "-f"), ("top",)])
def test_full_disk_behind_standard_output_is_a_74(
    command: tuple[str, ...], folded: str, pyprof_path: str, tmp_path: Path
) -> None:
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [pyprof_path, *command, folded],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},  # where the profile is rescued to
        )
    assert result.returncode == ExitCode.OUTPUT
    (line,) = result.stderr.splitlines()
    assert line.startswith("pyprof: ")
    assert "disk full" in line or "No space left" in line


@pytest.mark.parametrize(
    "closed",
    [
        ">&-",
        "2>&-",
        "<&-",
        "<&- >&- 2>&-",
    ],
)
def test_standard_descriptor_that_was_closed_hinders_no_file(
    closed: str, folded: str, tmp_path: Path, pyprof_path: str
) -> None:
    line = f'exec "$0" "$@" {closed}'
    result = subprocess.run(
        ["sh", "-c", line, pyprof_path, "render", folded, "-o", "y.svg"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == ExitCode.DONE, result.stderr
    assert (tmp_path / "y.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        signal.SIGHUP,
    ],
)
def test_signal_that_was_ignored_at_the_start_stays_ignored(
    number: signal.Signals, tmp_path: Path, pyprof_path: str
) -> None:
    os.mkfifo(tmp_path / "input")
    line = f'trap \'\' {number.name.removeprefix("SIG")}; exec "$0" "$@"'
    with subprocess.Popen(
        ["sh", "-c", line, pyprof_path, "top", str(tmp_path / "input")], stdout=subprocess.DEVNULL
    ) as process:
        with open(tmp_path / "input", "w") as reader:  # opens when pyprof reads
            status = Path(f"/proc/{process.pid}/status").read_text()
            reader.write("main 1\n")
        ignored = int(status.split("SigIgn:", 1)[1].split(None, 1)[0], 16)
    assert process.returncode == ExitCode.DONE
    assert ignored & 1 << (number - 1)
