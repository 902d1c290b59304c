"""How many requests a call has under way."""

from hypothesis import given
from hypothesis import strategies as st
from sluice_client.window import Window


def test_a_refusal_halves_it_and_a_windowful_of_successes_gives_one_back() -> None:
    window = Window(8)
    window.on_refusal(sent_at=0, now=1)
    assert window.size == 4
    for _ in range(5):
        window.on_success()
    assert window.size == 5


def test_requests_that_were_under_way_together_cut_once() -> None:
    window = Window(8)
    for refused_at in (1, 1.1, 1.2):
        window.on_refusal(sent_at=0, now=refused_at)
    assert window.size == 4
    window.on_refusal(sent_at=2, now=3)
    assert window.size == 2


@given(largest=st.integers(1, 20), events=st.lists(st.booleans(), max_size=200))
def test_it_stays_between_one_and_its_largest(largest: int, events: list[bool]) -> None:
    window = Window(largest)
    for moment, refused in enumerate(events):
        if refused:
            window.on_refusal(sent_at=moment, now=moment)
        else:
            window.on_success()
        assert 1 <= window.size <= largest
