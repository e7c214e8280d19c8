import pytest

from hpcsft.plan import make_plan
from hpcsft.preflight.resources.notice import notice_findings
from hpcsft.site.records import Accounts, Association, Qos
from hpcsft.spec import parse_spec
from tests.site.made import partition, preempting_site

EVALUATE = {"prompts": "p.json", "judge": {"kind": "local", "model": "m"}}


def plan_of(signal_s=140, **values):
    spec = parse_spec({"model": {"path": "m"}, "data": {"train": ["d"]}, **values})
    plan = make_plan(spec)
    stages = [stage.model_copy(update={"signal_s": signal_s}) for stage in plan.stages]
    return plan.model_copy(update={"stages": stages})


def findings(site, save_s=40.0, measured=False, plan=None):
    return notice_findings(plan or plan_of(), site, save_s, measured)


def test_a_save_that_takes_longer_than_the_notice_loses_steps():
    [found] = findings(preempting_site(grace_s=5, kill_wait_s=10))
    assert (found.level, found.where) == ("warning", "cluster.train.partition")
    assert "partition low preempts with 5 s of grace and 10 s more before the kill (KillWait)" in found.message
    assert "takes about 40 s (estimated from the size of a checkpoint)" in found.message
    assert "a preemption loses the steps since the last checkpoint" in found.message
    assert found.hint == "train.checkpoint.every_minutes=7 bounds what is lost; nothing preempts high"


def test_a_save_that_just_fits_may_lose_steps():
    [found] = findings(preempting_site(kill_wait_s=45), measured=True)
    assert found.level == "warning"
    assert "no grace time, 45 s between SIGTERM and the kill" in found.message
    assert "about 40 s (measured in an earlier run): a preemption may lose the steps" in found.message


@pytest.mark.parametrize("mode", ["REQUEUE", "CANCEL"])
def test_enough_notice_loses_nothing(mode):
    """Where preemptions cancel, too: a job that has saved puts itself back into the queue, while Slurm still waits."""
    found = findings(preempting_site(mode, grace_s=120))[0]
    assert found.level == "note"
    assert found.message.endswith("no step is lost; the job goes back into the queue")


def test_a_cancelled_job_may_need_a_person():
    train, others = findings(preempting_site("CANCEL", kill_wait_s=10), plan=plan_of(evaluate=EVALUATE))
    assert (train.level, others.level) == ("warning", "warning")
    assert train.message.endswith("loses the steps since the last checkpoint, and may end the job for good")
    assert train.hint.startswith("resume.py goes on with such a run; train.checkpoint.every_minutes=7")
    assert "partition low cancels what it preempts, with no grace time, 10 s" in others.message
    assert "an item of preprocess, generate, judge that takes longer ends the job for good" in others.message
    assert (others.where, others.hint) == ("cluster.preprocess.partition", "resume.py goes on with such a run")


def test_only_stages_in_a_partition_that_cancels_are_named():
    plan = plan_of(evaluate=EVALUATE, cluster={"partition": "high", "judge": {"partition": "low"}})
    train, judge = findings(preempting_site("CANCEL"), plan=plan)
    assert train.level == "note"
    assert (judge.where, "an item of judge that" in judge.message) == ("cluster.judge.partition", True)


def test_a_suspended_job_loses_nothing():
    [found] = findings(preempting_site("SUSPEND"))
    assert found.level == "note"
    assert "partition low suspends a preempted job, which goes on where it was" in found.message


def test_without_preemption_the_time_limit_remains():
    [found] = findings(preempting_site(), plan=plan_of(cluster={"partition": "high"}))
    assert found.level == "note"
    assert found.message.startswith("nothing preempts training in partition high; training is told 140 s before")


def test_a_time_limit_too_short_for_a_save_is_told():
    found, _ = findings(preempting_site(grace_s=600), save_s=300)
    assert (found.level, found.where, found.hint) == ("warning", "cluster.train.time", "raise cluster.train.time")
    assert "told 140 s before its time limit, and killed 30 s after it (KillWait)" in found.message
    assert found.message.endswith("the time limit loses the steps since the last checkpoint")


def test_a_save_of_unknown_length_claims_nothing():
    [found] = findings(preempting_site(), save_s=None)
    assert found.level == "note"
    assert "what a save takes is not known; the job goes back into the queue" in found.message
    assert "no step is lost" not in found.message


def test_the_qos_of_the_account_counts_where_qos_decide():
    own = Association(account="physics", qos=["idle"], default_qos="idle")
    qos = [Qos(name="idle", grace_s=300, preempt_mode="REQUEUE"), Qos(name="urgent", preempts=["idle"])]
    accounts = Accounts(default_account="physics", associations=[own], qos=qos)
    [found] = findings(preempting_site(preempt_type="qos", accounts=accounts))
    assert (found.level, found.message.startswith("QOS idle preempts with 300 s of grace")) == ("note", True)


def test_partitions_that_are_closed_are_not_recommended():
    low, high = (
        partition("low", default=True, preempt_mode="REQUEUE"),
        partition("high", priority_tier=9, root_only=True),
    )
    [found] = findings(preempting_site(partitions=[low, high]))
    assert found.hint == "train.checkpoint.every_minutes=7 bounds what is lost"


def test_a_partition_that_does_not_exist_is_for_others_to_tell():
    assert findings(preempting_site(), plan=plan_of(cluster={"partition": "gpu"})) == []


def test_of_several_partitions_the_worst_counts():
    site = preempting_site(grace_s=5, kill_wait_s=10)
    plan = plan_of(cluster={"partition": "high,low"})
    [found] = findings(site, plan=plan)
    assert found.level == "warning" and "partition low preempts" in found.message
