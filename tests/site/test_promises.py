from hpcsft.site.promises import grouped, local_promises, promises
from hpcsft.site.records import Accounts, Association, Qos
from tests.site.made import preempting_site, recorded_site


def told(site, holds):
    return " ".join(promise.text for promise in promises(site) if promise.holds is holds)


def test_a_cluster_that_requeues_promises_to_go_on_and_says_when_steps_are_lost():
    good = told(preempting_site(grace_s=60), True)
    assert "A preempted job in low has 90 s between the first signal and the kill" in good
    assert "either way it goes back into the queue" in good
    assert "Nothing preempts jobs in high." in good
    assert "The end of a time limit loses no step" in good


def test_a_cluster_that_cancels_says_that_resume_may_be_needed():
    bad = told(recorded_site("config-without-accounts", "partitions-cancel"), False)
    assert "in low has 45 s between" in bad
    assert "cancelled for good, and resume.py goes on from its last checkpoint" in bad


def test_suspended_jobs_lose_nothing():
    assert "in low is suspended, and goes on where it was" in told(preempting_site("SUSPEND"), True)


def test_without_preemption_that_is_all_there_is_to_say():
    good = told(preempting_site(preempt_type=None), True)
    assert "Nothing preempts jobs on this cluster." in good
    assert "between the first signal" not in good


def test_ends_are_explained_from_accounts_where_there_are_any():
    assert "Slurm's accounts (sacct)" in told(recorded_site(), True)
    bad = told(recorded_site("config-without-accounts"), False)
    assert "(this cluster keeps no accounts): 5:00 after its end Slurm forgets a job" in bad


def test_the_size_of_arrays():
    assert "up to 1,001 tasks" in told(recorded_site(), True)
    assert "takes no job arrays" in told(preempting_site(max_array_size=1), False)
    assert "array" not in told(preempting_site(), True) + told(preempting_site(), False), "not known: nothing is said"


def test_where_qos_decide_they_are_told_apart_as_far_as_this_user_may_use_them():
    qos = [Qos(name="normal"), Qos(name="idle"), Qos(name="secret"), Qos(name="urgent", preempts=["idle", "secret"])]
    accounts = Accounts(qos=qos, associations=[Association(account="a", qos=["normal", "idle"])])
    found = grouped(preempting_site(preempt_type="qos", accounts=accounts))
    assert {mode and mode.mode: names for mode, names in found.items()} == {
        None: ["QOS normal"],
        "REQUEUE": ["QOS idle"],
    }


def test_without_slurm_there_is_this_machine():
    assert "All stages run on this machine" in local_promises()[0].text
