"""A profile's own sums."""

from pyprof.profiler.profile import Profile, ProfileSample, Quality, Truncation


def test_stacks_that_are_not_known_to_be_cut_are_complete() -> None:
    assert Quality().complete == 0
    assert Quality(user_stacks=10).complete == 10
    cut = (Truncation("no unwind row", 3), Truncation("page not resident", 4))
    assert Quality(user_stacks=10, truncated=cut).complete == 3


def test_total_is_the_sum_of_all_values() -> None:
    samples = (ProfileSample((), 3, "a"), ProfileSample((), 4, ""))
    assert Profile(unit="samples", samples=samples, frames=()).total == 7
    assert Profile(unit="samples", samples=(), frames=()).total == 0
