"""Guards the run against its own past: whoever was taken over publishes nothing, and cannot take the run back."""

from __future__ import annotations

import pytest

from hpcsft.attempt import fence as fence_module
from hpcsft.attempt.fence import MARK_VARIABLE
from hpcsft.errors import EXIT_FAILED, EXIT_FENCED, Fenced, RunNotFoundError
from hpcsft.records import Intent, Submission, SubmittedStage
from hpcsft.rundir import RunDir
from tests.attempt.made import empty_run, fence, submitted, token


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDir:
    monkeypatch.setattr(fence_module, "PATIENCE_S", 0.0)
    return empty_run(tmp_path)


def test_before_anybody_has_claimed_everybody_may_go_on(run):
    fence(run).check()
    assert fence(run).newest() is None and not fence(run).is_stale()


def test_the_newest_claim_wins(run):
    first, second = fence(run, restart=0), fence(run, restart=1)
    first.claim()
    first.check()
    second.claim()
    second.check()
    with pytest.raises(Fenced, match=r"attempt 44_0 is not the newest any more: 44_1 has taken over"):
        first.check()
    assert second.newest() == token(restart=1)


def test_an_older_restart_of_the_same_job_cannot_claim(run):
    """A node that comes back with a rank that had not even started."""
    fence(run, restart=2).claim()
    for restart in (0, 1):
        assert fence(run, restart=restart).is_stale()
        with pytest.raises(Fenced, match=f"attempt 44_{restart} "):
            fence(run, restart=restart).claim()
    fence(run, restart=2).check()
    fence(run, restart=2).claim()
    fence(run, restart=10).claim()  # by number, not by the letters


def test_a_job_that_was_submitted_anew_fences_off_the_older_job(run):
    """Also before the new job has started, and whatever its number: job ids wrap around."""
    submitted(run, ("train", "44"))
    fence(run).claim()
    submitted(run, ("train", "44"), ("report", "45"), ("train", "7"))
    assert fence(run, "44", restart=3).is_stale()
    with pytest.raises(Fenced):
        fence(run, "44", restart=3).claim()
    fence(run, "7").claim()
    with pytest.raises(Fenced):
        fence(run, "44").check()


def intended(run: RunDir, mark: str) -> None:
    """Let sbatch be at it, under this mark."""
    submission = run.read_submission() or Submission(cluster="slurm", host="login")
    job = SubmittedStage(stage="train", job_id="", depends_on=[], tasks=1, submitted="")
    run.write_submission(submission.model_copy(update={"intent": Intent(mark=mark, jobs=[job])}))


def test_a_job_that_starts_before_its_submission_is_written_may_claim(run, monkeypatch):
    """sbatch has answered, but the answer is not in submission.json yet: the job carries the mark of the intent."""
    monkeypatch.setenv(MARK_VARIABLE, "cafe0001")
    intended(run, "cafe0001")
    fence(run, "43").claim()
    submitted(run, ("train", "44"))
    fence(run, "44").claim()
    intended(run, "cafe0001")
    fence(run, "46").claim()
    with pytest.raises(Fenced):
        fence(run, "44").check()


@pytest.mark.parametrize("mark", ["cafe0002", None])
def test_a_job_that_nobody_knows_of_does_not_start_beside_the_one_that_was_submitted(run, monkeypatch, mark):
    """Slurm took it without an answer, it was not found, and another was submitted in its place."""
    monkeypatch.setenv(MARK_VARIABLE, "cafe0001")
    submitted(run, ("train", "44"))
    if mark:
        intended(run, mark)
    with pytest.raises(Fenced, match="job 43 is not the one that was submitted for train") as orphan:
        fence(run, "43").claim()
    assert orphan.value.exit_code == EXIT_FAILED, "Slurm has not given it up: it has to end"
    fence(run, "44").claim()
    with pytest.raises(Fenced, match="43_0 is not the newest any more: 44_0 has taken over"):
        fence(run, "43").claim()


def test_a_resumed_job_that_is_shown_an_old_submission_at_first_may_claim(run, monkeypatch):
    """A shared filesystem may show a node for a minute what was there before the resume."""
    monkeypatch.setattr(fence_module, "PATIENCE_S", 60.0)
    monkeypatch.setattr(fence_module.time, "sleep", lambda _: submitted(run, ("train", "44"), ("train", "50")))
    submitted(run, ("train", "44"))
    fence(run, "50").claim()
    with pytest.raises(Fenced, match="44_0 is not the newest any more: 50_0 has taken over"):
        fence(run, "44").claim()


def test_a_run_that_has_gone_is_told_and_not_taken_for_one_that_nobody_claimed(run):
    fence(run).claim()
    run.path.rename(run.path.with_name("elsewhere"))
    for act in (fence(run).check, fence(run).claim):
        with pytest.raises(RunNotFoundError, match="is gone: moved or deleted"):
            act()
    assert not run.path.exists()


def test_the_tasks_of_an_array_are_of_one_job_and_do_not_meet(run):
    submitted(run, ("generate", "44"))
    tasks = [fence(run, f"44_{index}", stage="generate", index=index) for index in (0, 1)]
    for task in tasks:
        task.claim()
    for task in tasks:
        task.check()
    submitted(run, ("generate", "44"), ("generate", "50"))
    assert tasks[0].is_stale()
    assert not fence(run, "50_0", stage="generate").is_stale()


def test_the_stages_of_one_driver_do_not_meet(run):
    """Without Slurm all stages have one job id."""
    for stage in ("preprocess", "train"):
        fence(run, "local-9", stage=stage).claim()
    fence(run, "local-9", restart=1, stage="train").claim()
    fence(run, "local-9", stage="preprocess").check()


def test_an_attempt_by_hand_takes_over_and_the_next_of_slurm_takes_it_back(run):
    submitted(run, ("train", "44"))
    fence(run, "44").claim()
    fence(run, "hand-9").claim()
    with pytest.raises(Fenced):
        fence(run, "44").check()
    fence(run, "44", restart=1).claim()
    with pytest.raises(Fenced):
        fence(run, "hand-9").check()


def test_who_has_lost_its_task_and_who_has_only_not_begun(run):
    """A rank may fail, and a batch script end, before the leader of their attempt has claimed the task."""
    assert not fence(run, restart=1).lost(begun=True), "nobody has claimed"
    fence(run, restart=1).claim()
    assert [fence(run, restart=1).lost(begun) for begun in (False, True)] == [False, False]
    assert [fence(run, restart=2).lost(begun) for begun in (False, True)] == [False, True]
    assert [fence(run, restart=0).lost(begun) for begun in (False, True)] == [True, True]


def test_a_job_that_another_has_taken_over_ends_and_one_that_slurm_has_given_up_is_held(run):
    fence(run, "44", 0).claim()
    fence(run, "44", 1).claim()
    with pytest.raises(Fenced, match="44_1 has taken over") as given_up:
        fence(run, "44", 0).check()
    fence(run, "hand-7").claim()
    with pytest.raises(Fenced, match="hand-7_0 has taken over") as by_hand:
        fence(run, "44", 1).check()
    assert (given_up.value.exit_code, by_hand.value.exit_code) == (EXIT_FENCED, EXIT_FAILED)
    assert "started by hand" in by_hand.value.hint
