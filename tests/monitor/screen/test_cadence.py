"""Guards how often Slurm is asked."""

from __future__ import annotations

from hpcsft.monitor.screen.cadence import LONGEST_S, PIPE_S, TERMINAL_S, Cadence


def test_the_pause_grows_while_nothing_changes_and_no_further_than_three_minutes():
    for base_s in (TERMINAL_S, PIPE_S):
        cadence, pauses = Cadence(base_s), []
        for _ in range(20):
            pauses.append(cadence.pause_s)
            cadence.unchanged()
        assert pauses[0] == base_s and pauses == sorted(pauses) and pauses[-1] == LONGEST_S == 180
        cadence.changed()
        assert cadence.pause_s == base_s
    assert (TERMINAL_S, PIPE_S) == (15, 60)


def test_pauses_are_not_all_alike():
    cadence = Cadence(TERMINAL_S)
    pauses = [cadence.next_s() for _ in range(200)]
    assert len(set(pauses)) > 100 and all(13.4 < pause < 16.6 for pause in pauses)
