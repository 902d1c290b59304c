"""Three front ends may die within a minute, not four."""

from sluice_server.frontends.deaths import Deaths


def test_the_fourth_death_within_a_minute_is_one_too_many() -> None:
    deaths = Deaths()
    assert [deaths.are_too_many(now) for now in (0, 20, 40, 59)] == [False, False, False, True]


def test_deaths_that_are_far_apart_are_accidents() -> None:
    deaths = Deaths()
    assert not any(deaths.are_too_many(now) for now in range(0, 600, 25))
