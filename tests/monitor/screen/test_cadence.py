"""Guards how often Slurm is asked, and that what happens is not answered with an answer from before it happened."""

from __future__ import annotations

from hpcsft.monitor.screen.cadence import LONGEST_S, PIPE_S, SHORTEST_S, TERMINAL_S, Cadence

NOW = 1_800_000_000.0


def test_the_pause_grows_while_nothing_changes_and_no_further_than_three_minutes():
    for base_s in (TERMINAL_S, PIPE_S):
        cadence, pauses = Cadence(base_s), []
        for _ in range(20):
            pauses.append(cadence.pause_s)
            cadence.answered(changed=False)
        assert pauses[0] == base_s and pauses == sorted(pauses) and pauses[-1] == LONGEST_S == 180
        cadence.answered(changed=True)
        assert cadence.pause_s == base_s
    assert (TERMINAL_S, PIPE_S) == (15, 60)


def first_due_s(cadence: Cadence) -> float:
    """Seconds after a question at NOW, to the tenth, until the next one is due."""
    return next(tenths / 10 for tenths in range(5000) if cadence.due(NOW, NOW + tenths / 10))


def test_pauses_are_not_all_alike():
    pauses = {first_due_s(Cadence(TERMINAL_S)) for _ in range(200)}
    assert len(pauses) > 15 and min(pauses) >= 13.5 and max(pauses) <= 16.6


def test_what_happens_is_asked_about_soon_and_with_a_newer_answer():
    cadence = Cadence(TERMINAL_S)
    for _ in range(10):
        cadence.answered(changed=False)
    assert first_due_s(cadence) > 100
    cadence.want(NOW + 1)
    assert first_due_s(cadence) == SHORTEST_S
    assert cadence.max_age_s(NOW, NOW + 3) == 2, "another monitor's answer from before it happened is too old"
    asked = NOW + 3
    cadence.answered(changed=False)
    assert not cadence.due(asked, asked + SHORTEST_S), "it has been answered"
    assert cadence.max_age_s(asked, asked + 20) > 5


def test_what_happens_while_slurm_is_being_asked_is_not_forgotten():
    cadence = Cadence(PIPE_S)
    cadence.want(NOW + 0.5)  # the question was asked at NOW
    cadence.answered(changed=True)
    assert cadence.due(NOW, NOW + SHORTEST_S)


def test_a_clock_that_was_set_back_stops_nothing():
    assert Cadence(TERMINAL_S).due(NOW, NOW - 3600)
