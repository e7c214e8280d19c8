from hpcsft.site.accounts import parse_accounts
from tests.site.made import recorded, recorded_site


def test_the_accounts_of_a_real_cluster():
    accounts = recorded_site().accounts
    assert accounts.default_account == "physics"
    chemistry, physics, root = accounts.associations
    assert (chemistry.account, chemistry.partition, chemistry.max_time_min) == ("chemistry", "high", 60)
    assert (chemistry.max_jobs, chemistry.max_submitted) == (7, 9)
    assert (physics.partition, physics.qos, physics.default_qos) == (None, ["long", "normal", "scavenger"], "normal")
    assert (root.account, root.max_time_min, root.max_jobs) == ("root", None, None)


def test_the_qualities_of_service_of_a_real_cluster():
    normal, long, scavenger = recorded_site().accounts.qos
    assert (normal.name, normal.max_time_min, normal.preempt_mode) == ("normal", None, None)
    assert (long.max_time_min, long.max_nodes, long.max_jobs_per_user, long.max_submitted_per_user) == (2880, 3, 2, 5)
    assert (scavenger.grace_s, scavenger.preempt_mode, scavenger.preempts) == (90, "REQUEUE", [])


def test_accounts_of_another_cluster_do_not_count():
    rows = recorded("associations") + "elsewhere|secret||normal||||\n"
    assert "secret" not in [own.account for own in parse_accounts("minislurm", rows, "", "", []).associations]


def test_what_a_version_does_not_tell_is_unknown_and_no_error():
    accounts = parse_accounts(
        "c", "c|physics\n\n", "\n", "normal\nurgent||cpu=4,node=x|||5 min|New|normal,low\n", ["qos"]
    )
    assert [(own.account, own.qos) for own in accounts.associations] == [("physics", [])]
    assert accounts.default_account is None
    normal, urgent = accounts.qos
    assert (urgent.max_nodes, urgent.grace_s, urgent.preempt_mode) == (None, 0, None)
    assert (normal.preempts, urgent.preempts) == ([], ["normal", "low"])


def test_flags_of_a_qos_and_the_name_of_a_cluster_in_other_letters():
    accounts = parse_accounts("Alps", "alps|physics||long||||\n", "", "long|||||||normal|PartitionTimeLimit\n", [])
    assert [own.account for own in accounts.associations] == ["physics"]
    assert accounts.qos[0].flags == ["partitiontimelimit"]
