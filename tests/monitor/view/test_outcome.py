"""Guards that a person learns why what is shown may be old, and only while it matters."""

from __future__ import annotations

from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.view.outcome import silence


def run(**facts: object) -> RunState:
    return RunState(run_dir="/runs/x-0123abcd", state="running", stages=[], train={}, **facts)


def test_a_run_about_which_slurm_here_can_tell_nothing():
    state = run(unseen="submitted on cluster a; this is b")
    told = "submitted on cluster a; this is b: Slurm is not asked, what is shown comes from the run directory"
    assert silence(state).plain == told
    assert silence(state.model_copy(update={"state": "done"})) is None
    assert silence(run()) is None
