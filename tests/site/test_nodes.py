import time

import pytest

from hpcsft.site.nodes import host_list, is_usable, parse_gpus, parse_nodes
from hpcsft.site.preemption import expanded
from tests.site.made import recorded

OLDER = (
    "NodeName=g1 Arch=x86_64 CPUAlloc=0 CPUTot=128 CPULoad=0.01 AvailableFeatures=ib,a100 ActiveFeatures=ib "
    "Gres=gpu:a100:8(S:0-1),nvme:2 RealMemory=1031000 State=MIXED Partitions=gpu,all OS=Linux 4.18"
)
NEWER = OLDER.replace("NodeName=g1", "NodeName=g2").replace("CPUTot=128", "CPUEfctv=124 CPUTot=128")
CLOUD = (
    "NodeName=queue1-dy-small-10 CoresPerSocket=1 CPUAlloc=0 CPUTot=8 CPULoad=N/A Gres=(null) RealMemory=1 "
    "State=IDLE+CLOUD+POWERED_DOWN Partitions=all BootTime=None"
)


def test_alike_nodes_of_a_real_cluster_are_one_kind():
    [kind] = parse_nodes(recorded("nodes"))["low"]
    assert (kind.count, kind.names, kind.cpus, kind.memory_mb) == (4, "n[1-4]", 4, 64_000)
    assert (kind.gpus, kind.gpu_type, kind.features) == (4, None, [])


def test_what_an_administrator_writes_about_a_node_is_no_field():
    """The reason that was recorded for n3 has a State= and a Gres= of its own."""
    assert "Reason=bad Gres=gpu:9 State=IDLE" in recorded("nodes")
    [kind] = parse_nodes(recorded("nodes"))["high"]
    assert (kind.usable, kind.gpus) == (2, 4), "n3 is drained, n4 is down"


def test_kinds_are_told_apart_in_each_partition():
    found = parse_nodes("\n".join([OLDER, NEWER, CLOUD, "", "no node"]))
    assert [(kind.names, kind.cpus) for kind in found["gpu"]] == [("g1", 128), ("g2", 124)]
    assert [kind.names for kind in found["all"]] == ["g1", "g2", "queue1-dy-small-10"]
    first = found["gpu"][0]
    assert (first.gpus, first.gpu_type, first.features, first.memory_mb) == (8, "a100", ["ib"], 1_031_000)


def test_a_node_of_which_little_is_told_is_no_error():
    [kind] = parse_nodes("NodeName=x Partitions=p Reason=it had Gres=gpu:9 and CPUTot=9")["p"]
    assert (kind.count, kind.cpus, kind.memory_mb, kind.gpus) == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "state",
    [
        "IDLE",
        "MIXED+PLANNED",
        "ALLOCATED",
        "IDLE+CLOUD+POWERED_DOWN",
        "IDLE+POWERING_DOWN",
        "MIXED#",
        "ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP",
        "IDLE*+CLOUD+POWER",
    ],
)
def test_usable_states(state):
    assert is_usable(state)


@pytest.mark.parametrize(
    "state",
    [
        "DOWN",
        "DOWN*",
        "IDLE*",
        "MIXED+DRAIN",
        "IDLE+NOT_RESPONDING",
        "UNKNOWN",
        "FAIL",
        "down",
        "DOWN+CLOUD+POWERED_DOWN",
    ],
)
def test_unusable_states(state):
    assert not is_usable(state)


@pytest.mark.parametrize(
    ("gres", "found"),
    [
        ("gpu:4", (4, None)),
        ("gpu:h100:8(S:0-1)", (8, "h100")),
        ("gpu:v100:4(S:0,1),min-vram:no_consume:32G", (4, "v100")),
        ("gpu:a100_3g.20gb:2,gpu:a100:1", (3, None)),
        ("gpu:a100", (1, "a100")),
        ("shard:32,craynetwork:4", (0, None)),
        ("(null)", (0, None)),
        ("", (0, None)),
    ],
)
def test_gpus_as_sites_write_them(gres, found):
    assert parse_gpus(gres) == found


@pytest.mark.parametrize(
    ("hosts", "short"),
    [
        (["n1"], "n1"),
        (["n3", "n1", "n2", "n10"], "n[1-3,10]"),
        (["gpu008", "gpu009", "gpu010"], "gpu[008-010]"),
        (["r1-n1-ib", "r1-n2-ib"], "r1-n[1-2]-ib"),
        (["login", "n2", "n1"], "login,n[1-2]"),
    ],
)
def test_host_lists_are_short_and_tell_every_host(hosts, short):
    assert host_list(hosts) == short
    assert expanded(short) == set(hosts)


def test_thousands_of_nodes_take_no_time():
    line = recorded("nodes").splitlines()[0]
    text = "\n".join(line.replace("NodeName=n1 ", f"NodeName=n{number} ") for number in range(1, 5001))
    began_s = time.process_time()
    [kind] = parse_nodes(text)["low"]
    assert (kind.count, kind.names) == (5000, "n[1-5000]")
    assert time.process_time() - began_s < 1, "0.06 s of a free core; far more would be felt at every submission"
