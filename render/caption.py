"""Caption: what a reader must know beside the picture, in words and as data.

Where a profile came from, how complete it is, and what was lost. The same words stand in every
format, so that two people with two formats read the same.
"""

import time

from pyprof.profiler.profile import Profile, Provenance, Quality

_MODES = {"cpu": "CPU", "offcpu": "Off-CPU", "wakeup": "Wakeup", "offwake": "Off-wake", "chain": "Chain"}
_DURATIONS = ((10**9, "s"), (10**6, "ms"), (10**3, "µs"))
_ENOUGH_SHARE = 0.9  # of the expected ticks: below it the picture says how many never came


def count_words(value: int, name: str) -> str:
    """Return "12,345 samples", or "1 sample": the name is a plural."""
    return f"{value:,} {name[:-1] if value == 1 and name.endswith('s') else name}"


def percent(part: int, whole: int) -> str:
    """Return the share as "12.3%", with a second decimal below 1%; "0%" of nothing."""
    share = 100 * part / whole if whole else 0.0
    if share == 0:
        return "0%"
    if share < 0.01:
        return "<0.01%"
    return f"{share:.1f}%" if share >= 1 else f"{share:.2f}%"


def title_words(provenance: Provenance) -> str:
    """Return a title for a profile of this mode, "CPU flame graph"."""
    mode = _MODES.get(provenance.mode, provenance.mode)
    return f"{mode} flame graph" if mode else "Flame graph"


def provenance_words(provenance: Provenance) -> list[str]:
    """Return how, where and when the profile was taken, a phrase each; unknown things are left out."""
    phrases = (
        provenance.mode,
        provenance.targets,
        _rate_words(provenance),
        _duration_words(provenance.duration_ns) if provenance.duration_ns else "",
        count_words(provenance.cpus, "CPUs") if provenance.cpus else "",
        provenance.host and f"host {provenance.host}",
        provenance.kernel and f"Linux {provenance.kernel}",
        f"started {_started_words(provenance.started_unix_ns)}" if provenance.started_unix_ns else "",
        provenance.engine,
        provenance.version and f"pyprof {provenance.version}",
    )
    return [phrase for phrase in phrases if phrase]


def quality_words(quality: Quality, unit: str) -> list[str]:
    """Return how complete the profile is, a phrase each; the losses are in `loss_words`."""
    if quality == Quality():
        return ["losses unknown: the source does not record them"]
    words = [_taken_words(quality, unit)]
    if quality.idle:
        words.append(f"{quality.idle:,} idle")
    if quality.excluded:
        words.append(f"{quality.excluded:,} outside the filters")
    if not loss_words(quality):
        words.append(f"no {unit} lost")
    return words


def loss_words(quality: Quality) -> list[str]:
    """Return what is missing from the stacks, a phrase each, nothing if nothing is."""
    words = [
        f"{loss.value:,} lost: {loss.reason}" + (" (kept without their stacks)" if loss.kept else "")
        for loss in quality.losses
    ]
    missing = quality.expected - _busy(quality)
    if quality.expected and missing > (1 - _ENOUGH_SHARE) * quality.expected:
        words.insert(0, f"{missing:,} of the expected ({percent(missing, quality.expected)}) never taken")
    return words


def stack_words(quality: Quality, unwind: str) -> list[str]:
    """Return how whole the user stacks are, a phrase each; nothing where there are none.

    Where the kernel walked along frame pointers, only some ways to end early can be seen.
    """
    if not quality.user_stacks:
        return []
    share = percent(quality.complete, quality.user_stacks)
    known = "not known to be cut (frame pointers)" if unwind == "fp" else "complete"
    words = [f"user stacks {share} {known}"]
    words += [f"{value:,} truncated: {reason}" for reason, value in quality.truncated]
    if quality.verified:
        words.append(f"{quality.agreed:,} of {quality.verified:,} stacks verified by a second walk")
    return words


def caption_data(profile: Profile) -> dict[str, object]:
    """Return unit, total, provenance and quality as a JSON document's content."""
    provenance, quality = profile.provenance, profile.quality
    losses = [{"reason": loss.reason, "value": loss.value, "kept": loss.kept} for loss in quality.losses]
    truncated = [{"reason": reason, "value": value} for reason, value in quality.truncated]
    return {
        "unit": profile.unit,
        "total": profile.total,
        "provenance": {name: getattr(provenance, name) for name in Provenance.__slots__},
        "quality": {name: getattr(quality, name) for name in Quality.__slots__}
        | {"losses": losses, "truncated": truncated},
    }


def _rate_words(provenance: Provenance) -> str:
    event = provenance.event
    if provenance.frequency_hz:
        return f"{event} at {provenance.frequency_hz:,} Hz".strip()
    if provenance.period and event in {"cpu-clock", "task-clock"}:
        return f"{event} every {_duration_words(provenance.period)}"
    return f"{event} every {provenance.period:,}".strip() if provenance.period else event


def _duration_words(duration_ns: int) -> str:
    if duration_ns >= 1000 * 10**9:
        return f"{duration_ns // 10**9:,} s"
    for size_ns, unit in _DURATIONS:
        if duration_ns >= size_ns:
            return f"{duration_ns / size_ns:.3g} {unit}"
    return f"{duration_ns} ns"


def _started_words(unix_ns: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_ns // 10**9))
    except (OverflowError, OSError, ValueError):  # a hostile file may hold any number
        return f"Unix time {unix_ns // 10**9}"


def _taken_words(quality: Quality, unit: str) -> str:
    if quality.expected:
        share = percent(_busy(quality), quality.expected)
        return f"{_busy(quality):,} of {quality.expected:,} expected {unit} taken ({share})"
    return f"{count_words(quality.taken, unit)} taken"


def _busy(quality: Quality) -> int:
    """Return the ticks that hit a busy CPU: idle CPUs owe none, some kernels stop their timer."""
    return quality.taken - quality.idle
