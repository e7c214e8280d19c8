import pytest

from hpcsft.site.parse import enforced, keeps_accounts, parse_config, parse_partitions, settings
from tests.site.made import recorded, recorded_site


def config(text):
    return parse_config(settings(text), "ada", ["staff"])


def test_the_configuration_of_a_real_cluster():
    site = config(recorded("config"))
    assert (site.name, site.version, site.user, site.groups) == ("minislurm", "22.05.8", "ada", ["staff"])
    assert (site.preempt_type, site.preempt_mode, site.kill_wait_s) == ("partition_prio", "REQUEUE", 5)
    assert (site.max_array_size, site.max_submitted, site.forgets_after_s) == (1001, 10000, 300)
    assert (site.requeue, site.sends_user_signal, site.preempt_exempt_s) == (True, False, 0)


def test_accounts_are_kept_where_there_is_a_database():
    with_accounts, without = settings(recorded("config")), settings(recorded("config-without-accounts"))
    assert (keeps_accounts(with_accounts), keeps_accounts(without)) == (True, False)
    assert (enforced(with_accounts), enforced(without)) == (["associations", "limits", "qos"], [])


def test_the_user_signal_is_found_where_old_and_new_versions_have_it():
    assert config("SlurmctldParameters     = enable_configless,preempt_send_user_signal").sends_user_signal
    assert config("PreemptParameters       = youngest_first,send_user_signal").sends_user_signal
    assert not config("PreemptParameters       = (null)\nSlurmctldParameters     = (null)").sends_user_signal


def test_what_a_version_does_not_tell_is_unknown_and_no_error():
    site = config(
        "Configuration data as of today\nKillWait = soon\nMaxArraySize = many\nPreemptMode = NEW,THINGS\n\n=\n"
    )
    assert (site.name, site.version, site.preempt_type, site.preempt_mode) == ("unknown", "unknown", None, "OFF")
    assert (site.kill_wait_s, site.max_array_size, site.requeue, site.forgets_after_s) == (30, None, True, None)


def test_settings_of_other_sites():
    site = config(
        "PreemptType = preempt/qos\nPreemptMode = GANG,SUSPEND\nPreemptExemptTime = 01:00:00\nJobRequeue = 0\n"
        "SLURM_VERSION           = 25.11.4\nKillWait                = 120 sec\n"
    )
    assert (site.preempt_type, site.preempt_mode, site.preempt_exempt_s) == ("qos", "SUSPEND", 3600)
    assert (site.requeue, site.version, site.kill_wait_s) == (False, "25.11.4", 120)
    assert config("PreemptType = preempt/none\nPreemptMode = OFF").preempt_type is None


def test_the_partitions_of_a_real_cluster():
    low, high = recorded_site().partitions
    assert (low.name, low.default, low.state, low.preempt_mode, low.priority_tier) == ("low", True, "UP", "REQUEUE", 1)
    assert (high.name, high.default, high.priority_tier) == ("high", False, 10)
    assert (
        low.max_time_min is low.max_nodes is low.allow_accounts is low.allow_groups is low.allow_qos is low.qos is None
    )
    assert [kind.names for kind in low.nodes] == ["n[1-4]"]
    cancelling, _ = recorded_site("config-without-accounts", "partitions-cancel").partitions
    assert (cancelling.preempt_mode, cancelling.grace_s) == ("CANCEL", 15)


def test_the_limits_of_a_partition():
    line = (
        "PartitionName=gpu AllowGroups=staff,hpc DenyAccounts=guests AllowQos=normal,long Default=NO QoS=gpuq "
        "DefaultTime=01:00:00 MaxNodes=8 MaxTime=1-12:00:00 MinNodes=2 MaxCPUsPerNode=62 RootOnly=YES State=DRAIN "
        "MaxMemPerNode=480000 MaxCPUsPerSocket=UNLIMITED PreemptMode=GANG,SUSPEND GraceTime=120 PriorityTier=0"
    )
    [gpu] = parse_partitions(f"{line}\nno partition here\n", {}, "OFF")
    assert (gpu.allow_groups, gpu.deny_accounts, gpu.allow_qos) == (["staff", "hpc"], ["guests"], ["normal", "long"])
    assert (gpu.default_time_min, gpu.max_time_min, gpu.min_nodes, gpu.max_nodes) == (60, 36 * 60, 2, 8)
    assert (gpu.max_cpus_per_node, gpu.max_memory_per_node_mb, gpu.qos) == (62, 480000, "gpuq")
    assert (gpu.root_only, gpu.state, gpu.preempt_mode, gpu.grace_s) == (True, "DRAIN", "SUSPEND", 120)
    assert (gpu.priority_tier, gpu.allow_accounts, gpu.nodes) == (0, None, [])


def test_a_partition_without_a_mode_of_its_own_has_that_of_the_cluster():
    [bare] = parse_partitions("PartitionName=bare", {}, "CANCEL")
    assert (bare.preempt_mode, bare.state, bare.priority_tier) == ("CANCEL", "UP", 1)


def test_names_of_groups_may_have_blanks():
    line = "PartitionName=gpu AllowGroups=domain users,HPC AllowAccounts=ALL TRES=cpu=4,mem=8G MaxTime=1-00:00:00"
    [gpu] = parse_partitions(line, {}, "OFF")
    assert (gpu.allow_groups, gpu.max_time_min) == (["domain users", "HPC"], 1440)


@pytest.mark.parametrize(("word", "at_once"), [("NO", False), ("ANY", True), ("ALL", True), ("YES", True)])
def test_whether_sbatch_refuses_at_once(word, at_once):
    assert config(f"EnforcePartLimits = {word}").enforces_limits_at_once is at_once
