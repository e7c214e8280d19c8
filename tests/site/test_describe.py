import io

import pytest
from rich.console import Console

from hpcsft.site.describe import print_site
from hpcsft.site.promises import local_promises, promises
from hpcsft.site.records import Accounts, Association, Qos
from tests.site.made import partition, preempting_site, recorded_site


def shown(site, width=100):
    output = io.StringIO()
    print_site(site, promises(site) if site else local_promises(), Console(file=output, width=width))
    return output.getvalue()


def row(text, start):
    """The words of the line that begins so."""
    return " ".join(next(line for line in text.splitlines() if line.startswith(start)).split())


def test_a_real_cluster_with_accounts():
    text = shown(recorded_site())
    assert row(text, "Slurm") == "Slurm 22.05.8 cluster minislurm, user root"
    assert row(text, "low*") == "low* up none 2/4 4 CPUs, 62 GB, 4 GPUs"
    assert row(text, "physics (default)") == "physics (default) QOS long, normal, scavenger"
    assert "only in high; QOS normal; up to 1:00:00; 7 jobs at once; 9 jobs in the queue" in text
    assert row(text, "QOS long") == "QOS long up to 2-00:00:00; 3 nodes a job; 2 jobs at once; 5 jobs in the queue"
    assert row(text, "low  ") == "low requeued, with no grace time; 5 s from SIGTERM to the kill"
    assert row(text, "signal") == "signal SIGTERM"
    assert "closed to you" not in text


def test_a_real_cluster_without_accounts():
    text = shown(recorded_site("config-without-accounts", "partitions-cancel"))
    assert row(text, "accounts") == "accounts this cluster keeps no accounts"
    assert "cancelled, with 15 s of grace; 30 s from SIGTERM to the kill" in text
    assert row(text, "! A preempted job").startswith("! A preempted job in low has 45 s")


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_nothing_is_cut_off_at_any_width(width):
    long = partition("interactive-a100-preemptible", allow_groups=["hpc"], max_time_min=2880, preempt_mode="REQUEUE")
    site = recorded_site()
    text = shown(site.model_copy(update={"partitions": [*site.partitions, long]}), width)
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= min(width, 120), "beyond 120 columns lines are hard to read"
    table = lines[lines.index("Partitions") + 1 : lines.index("Accounts")]
    state, node = table[0].index("state"), table[0].index("each node")
    assert long.name in "".join(line[:state].strip() for line in table)
    assert "64 CPUs, 500 GB, 4 GPUs (a100)" in " ".join(line[node:].strip() for line in table)
    assert "up 2-00:00:00 4/4" in [" ".join(line[state:node].split()) for line in table]


def test_partitions_that_are_closed_are_named_with_the_reason():
    site = preempting_site(partitions=[partition("gpu", allow_groups=["hpc"])], groups=["staff"])
    assert "gpu is closed to you: for the groups hpc" in shown(site)


def test_grace_of_a_qos_is_told_where_qos_decide():
    own = Association(account="a", qos=["idle"])
    accounts = Accounts(qos=[Qos(name="idle", grace_s=90), Qos(name="up", preempts=["idle"])], associations=[own])
    by_partition, by_qos = (
        shown(preempting_site(preempt_type=kind, accounts=accounts)) for kind in ("partition_prio", "qos")
    )
    assert "90 s of grace when it is preempted" in by_qos
    assert "90 s" not in by_partition
    assert "enforced  nothing: a job needs no account" in by_qos


def test_odd_settings_are_told_in_words():
    values = {"sends_user_signal": True, "requeue": False, "preempt_exempt_s": 3600}
    text = " ".join(shown(preempting_site("SUSPEND", accounts=Accounts(), **values)).split())
    assert "suspended, and resumed when the other job has ended" in text
    assert "a job that has run for less than 1:00:00" in text
    assert "SIGUSR2, which the jobs ask for" in text
    assert "by default they do not (JobRequeue=0), those of hpcsft ask for it" in text
    assert "ada no account: ask the administrators, if one is needed" in text


def test_a_cluster_without_preemption_and_a_partition_without_nodes():
    text = shown(preempting_site(preempt_type=None, partitions=[partition("empty", nodes=[])]))
    assert row(text, "empty") == "empty up none 0"
    assert row(text, "preemption") == "preemption none: a job that runs is left alone"


def test_without_slurm():
    text = shown(None)
    assert text.startswith("No Slurm here: sbatch and srun are not on the PATH")
    assert "What works without it (cluster.kind local)" in text
