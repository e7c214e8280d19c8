"""What runs, but not where people want it: said once, and only where there is something better."""

from __future__ import annotations

from hpcsft.inputs import InputFacts
from hpcsft.model_folder.check import ModelFacts
from hpcsft.preflight.resources.placement import placement_findings
from hpcsft.site.records import Site
from tests.preflight.made import cluster, planned, with_gpu

STAGES = ["preprocess", "train", "report"]


def found(site: Site, weights_gb: float = 0.0, **given) -> list[str]:
    spec, plan = planned(cluster=given, train={"global_batch_size": 64})
    model = ModelFacts(architecture="X", num_parameters=1, weights_bytes=int(weights_gb * 1e9))
    facts = InputFacts(model=model, data_files=[], data_bytes=0, num_prompts=0)
    findings = placement_findings(spec, plan, facts, site, STAGES)
    return [line for finding in findings for line in finding.lines()]


def test_cpu_stages_on_gpu_nodes_are_sent_elsewhere():
    lines = found(cluster(), gpus_per_node=8, cpus_per_task=8)
    assert lines == [
        "note: cluster.preprocess.partition, cluster.report.partition: "
        "needs no GPU, and would wait for, and run on, nodes that have them",
        "hint: partitions without GPUs: cpu",
    ]
    there = {"preprocess": {"partition": "cpu"}, "report": {"partition": "cpu"}}
    assert found(cluster(), gpus_per_node=8, cpus_per_task=8, **there) == []
    only_gpus = cluster(partitions=cluster().partitions[:1])
    assert found(only_gpus, gpus_per_node=8, cpus_per_task=8) == []


def test_forgotten_gpus():
    lines = found(cluster())
    assert any("no GPUs are asked for" in line and line.startswith("warning: cluster.gpus_per_node") for line in lines)
    assert "cluster.gpus_per_node=8; or cluster.train.gpus_per_node=0" in "\n".join(lines)
    meant = found(cluster(), train={"gpus_per_node": 0})
    assert not any("no GPUs are asked for" in line for line in meant)
    assert not any("no GPUs are asked for" in line for line in found(cluster(), partition="cpu"))


def test_ranks_with_a_single_cpu():
    assert any(line.endswith("cluster.train.cpus_per_task=8") for line in found(cluster(), gpus_per_node=8))
    assert any(line.endswith("cluster.train.cpus_per_task=8") for line in found(cluster(), gpus_per_node=4))


def test_nodes_that_are_half_used():
    lines = found(cluster(), gpus_per_node=4, cpus_per_task=8, train={"nodes": 2})
    assert "hint: cluster.train.nodes=1 with cluster.train.gpus_per_node=8" in lines
    assert not any("nodes=1" in line for line in found(cluster(), gpus_per_node=8, train={"nodes": 2}))


def test_a_limit_in_which_the_model_is_hardly_read():
    lines = found(with_gpu(), 140, gpus_per_node=8, cpus_per_task=8, time="00:20:00")
    assert any("a job may take 340 s to start and to read the model" in line for line in lines)
    assert not any("to start" in line for line in found(with_gpu(), 140, gpus_per_node=8, time="01:00:00"))
