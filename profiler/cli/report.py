"""What a command says on standard error: progress, the closing summary, where the result is."""

import sys
from typing import TYPE_CHECKING

import click

from pyprof.profiler.errors import ExitCode
from pyprof.profiler.profile import Profile
from pyprof.render.caption import stack_words

if TYPE_CHECKING:
    from rich.live import Live

    from pyprof.profiler.cpu import CpuSampler

PROGRESS_S = 0.25
WARN_SHARE, INVALID_SHARE = 0.01, 0.10  # of the samples lost
MIN_RATE_SHARE = 0.90  # of the expected ticks that arrived
MIN_EXPECTED = 50  # below this, a rate says nothing


class Progress:
    """One line on standard error, at most four times a second, when that is a terminal."""

    def __init__(self, duration_s: float | None, *, quiet: bool) -> None:
        self._duration_s = duration_s
        self._shown_s = 0.0
        self._wanted = sys.stderr.isatty() and not quiet
        self._live: Live | None = None

    def load(self) -> None:
        """Import what the line needs; not before the events are attached."""
        if self._wanted and self._live is None:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(stderr=True, highlight=False), auto_refresh=False, transient=True
            )
            self._live.start()

    def show(self, seconds: float, sampler: "CpuSampler") -> None:
        if self._live is None or seconds - self._shown_s < PROGRESS_S:
            return
        self._shown_s = seconds
        stats = sampler.stats()
        planned = f"/{self._duration_s:g}s" if self._duration_s else ""
        lost = stats.lost_counts + stats.lost_stacks
        line = f"{seconds:.0f}s{planned} {stats.counted:,} samples, lost {lost:,}; Ctrl-C to stop and report"
        self._live.update(line, refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def summary(profile: Profile) -> str:
    """Return the closing line: "2,376 samples in 30.0 s on 2 CPUs (2,400 expected), none lost"."""
    quality, provenance = profile.quality, profile.provenance
    expected = (
        f" ({quality.expected:,} ticks expected, {_arrived(profile):,} came)" if quality.expected else ""
    )
    lost = ", ".join(f"{loss.value:,} lost: {loss.reason}" for loss in quality.losses) or "none lost"
    seconds = provenance.duration_ns / 1e9
    cpus = f"{provenance.cpus} CPU{'s' if provenance.cpus != 1 else ''}"
    return f"{profile.total:,} {profile.unit} in {seconds:.1f} s on {cpus}{expected}, {lost}"


def warnings(profile: Profile) -> list[str]:
    """Return what the reader must know before trusting the picture, one sentence each."""
    told = list(profile.provenance.notes)
    quality = profile.quality
    if quality.expected >= MIN_EXPECTED and _arrived(profile) < MIN_RATE_SHARE * quality.expected:
        share = _arrived(profile) / quality.expected
        told.append(
            f"only {share:.0%} of the expected ticks came: the kernel throttled, or the timer was late"
        )
    if lost_share(profile) > WARN_SHARE:
        told.append(
            f"{lost_share(profile):.1%} of the samples lost their stack; try a larger --stack-storage-size"
        )
    if not profile.samples:
        told.append("no samples: the targets did not run on a CPU; `pyprof doctor` tells if sampling works")
    return told


def lost_share(profile: Profile) -> float:
    """Return the share, 0..1, of the samples whose stack was lost."""
    lost = sum(loss.value for loss in profile.quality.losses if loss.kept)
    return lost / profile.total if profile.total else 0.0


def quality_code(profile: Profile) -> int:
    """Return the exit code that the profile's losses ask for."""
    return ExitCode.INVALID_CAPTURE if lost_share(profile) > INVALID_SHARE else ExitCode.DONE


def tell(profile: Profile, path: str | None, *, quiet: bool) -> None:
    """Say on standard error how good the profile is and where it was written."""
    if quiet:
        return
    for warning in warnings(profile):
        click.echo(f"pyprof: {warning}", err=True)
    click.echo(f"pyprof: {summary(profile)}", err=True)
    stacks = stack_words(profile.quality, profile.provenance.unwind)
    if stacks:
        click.echo(f"pyprof: {', '.join(stacks)}", err=True)
    if path:
        click.echo(f"pyprof: wrote {path}", err=True)


def _arrived(profile: Profile) -> int:
    return profile.quality.taken - profile.quality.idle
