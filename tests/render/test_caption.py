"""What stands beside the picture, in words and as data."""

import json
from dataclasses import replace

import pytest

from pyprof.profiler.profile import Loss, Profile, Provenance, Quality, Truncation
from pyprof.render.caption import (
    caption_data,
    count_words,
    loss_words,
    percent,
    provenance_words,
    quality_words,
    stack_words,
    title_words,
)


def test_counts_have_thousands_and_a_singular() -> None:
    assert count_words(12345, "samples") == "12,345 samples"
    assert count_words(1, "samples") == "1 sample"
    assert count_words(0, "samples") == "0 samples"


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [
        (0, 7, "0%"),
        (5, 0, "0%"),
        (1, 1, "100.0%"),
        (123, 1000, "12.3%"),
        (5, 1000, "0.50%"),
        (1, 10**6, "<0.01%"),
    ],
)
def test_percent_shows_what_matters(part: int, whole: int, words: str) -> None:
    assert percent(part, whole) == words


@pytest.mark.parametrize(
    ("mode", "title"),
    [
        ("cpu", "CPU flame graph"),
        ("offcpu", "Off-CPU flame graph"),
        ("", "Flame graph"),
        ("new", "new flame graph"),
    ],
)
def test_the_title_follows_the_mode(mode: str, title: str) -> None:
    assert title_words(Provenance(mode=mode)) == title


def test_provenance_leaves_out_what_is_unknown() -> None:
    assert provenance_words(Provenance()) == []
    assert provenance_words(Provenance(mode="cpu", duration_ns=1_500_000_000)) == ["cpu", "1.5 s"]


def test_provenance_names_rate_and_start(web_server: Profile) -> None:
    words = provenance_words(web_server.provenance)
    assert "cpu-clock at 99 Hz" in words
    assert "started 2023-11-14 22:13:20 UTC" in words
    assert "2 CPUs" in words


@pytest.mark.parametrize(
    ("provenance", "words"),
    [
        (Provenance(event="cpu-clock", period=10**7), "cpu-clock every 10 ms"),
        (Provenance(event="cycles", period=10**6), "cycles every 1,000,000"),
        (Provenance(event="cycles"), "cycles"),
        (Provenance(duration_ns=3600 * 10**9), "3,600 s"),
        (Provenance(started_unix_ns=10**30), "started Unix time 1000000000000000000000"),
    ],
)
def test_provenance_phrases(provenance: Provenance, words: str) -> None:
    assert provenance_words(provenance) == [words]


def test_a_complete_profile_says_that_nothing_is_lost() -> None:
    quality = Quality(expected=70, taken=100, counted=60, idle=30, excluded=10)
    assert quality_words(quality, "samples") == [
        "70 of 70 expected samples taken (100.0%)",
        "30 idle",
        "10 outside the filters",
        "no samples lost",
    ]
    assert loss_words(quality) == []


def test_each_loss_is_named_with_its_value(web_server: Profile) -> None:
    assert loss_words(web_server.quality) == [
        "18 of the expected (15.0%) never taken",
        "10 lost: stack map full (kept without their stacks)",
        "2 lost: user stack could not be read",
    ]
    assert "no samples lost" not in quality_words(web_server.quality, "samples")


def test_a_source_without_quality_does_not_claim_that_nothing_is_lost() -> None:
    assert quality_words(Quality(), "samples") == ["losses unknown: the source does not record them"]


def test_the_expected_number_may_be_unknown() -> None:
    assert quality_words(Quality(taken=1), "samples") == ["1 sample taken", "no samples lost"]


def test_caption_data_is_json_with_every_field(web_server: Profile) -> None:
    data = json.loads(json.dumps(caption_data(web_server)))
    assert data["total"] == 100
    assert data["provenance"]["notes"] == ["nginx exited with status 3."]
    assert data["quality"]["losses"][0] == Loss("stack map full", 10, True)._asdict()


WHOLE = Quality(taken=8, user_stacks=8)
CUT = Quality(
    taken=1000,
    user_stacks=1000,
    truncated=(Truncation("no unwind row", 3), Truncation("page not resident", 7)),
)


def test_stacks_of_a_profile_without_any_are_not_mentioned() -> None:
    assert stack_words(Quality(), "dwarf") == []
    assert stack_words(Quality(taken=5, verified=1), "dwarf") == []


def test_whole_stacks_are_complete() -> None:
    assert stack_words(WHOLE, "dwarf") == ["user stacks 100.0% complete"]
    assert stack_words(WHOLE, "") == ["user stacks 100.0% complete"]


def test_frame_pointers_do_not_tell_whether_a_stack_is_complete() -> None:
    assert stack_words(WHOLE, "fp") == ["user stacks 100.0% not known to be cut (frame pointers)"]


def test_each_reason_for_a_cut_stack_is_told_with_its_value() -> None:
    assert stack_words(CUT, "dwarf") == [
        "user stacks 99.0% complete",
        "3 truncated: no unwind row",
        "7 truncated: page not resident",
    ]


def test_verification_is_told_where_there_was_one() -> None:
    words = stack_words(replace(WHOLE, verified=1234, agreed=1233), "dwarf")
    assert words[-1] == "1,233 of 1,234 stacks verified by a second walk"


def test_caption_data_has_the_truncations_by_name() -> None:
    data = caption_data(Profile(unit="samples", samples=(), frames=(), quality=CUT))
    quality = json.loads(json.dumps(data))["quality"]
    assert quality["truncated"][1] == {"reason": "page not resident", "value": 7}
    assert quality["user_stacks"] == 1000
