"""A model that is too large for the GPUs or the nodes of its partition: told with the settings that would do."""

from __future__ import annotations

from hpcsft.inputs import InputFacts
from hpcsft.model_folder.check import ModelFacts
from hpcsft.preflight.resources.memory import memory_findings
from hpcsft.site.records import Site
from tests.estimate.models import LLAMA_7B, LLAMA_7B_PARAMETERS, shape_of
from tests.preflight.made import A100, cluster, planned, with_gpu

ONE = {"gpus_per_node": 1, "mem_gb": 200}
EIGHT = {"gpus_per_node": 8, "mem_gb": 200}


def found(site: Site | None, cluster_section: dict, host_gb: float | None = None, size=LLAMA_7B_PARAMETERS, **sections):
    spec, plan = planned(cluster=cluster_section, **sections)
    model = ModelFacts(architecture="LlamaForCausalLM", num_parameters=size, shape=shape_of(LLAMA_7B) if size else None)
    facts = InputFacts(model=model, data_files=[], data_bytes=0, num_prompts=0)
    return list(memory_findings(spec, plan, facts, site, host_gb))


def of_type(gpu_type: str | None) -> Site:
    return with_gpu(nodes=[A100.model_copy(update={"gpu_type": gpu_type})])


def test_a_model_that_fits_is_fine_and_one_of_unknown_size_is_not_guessed():
    assert found(cluster(), EIGHT) == []
    assert found(cluster(), EIGHT, size=None) == []


def test_states_that_are_far_too_large_are_an_error():
    (error,) = found(of_type("a40"), ONE)
    assert (error.level, error.forcible, error.where) == ("error", True, "cluster.gpus_per_node")
    assert "and a40 has 48 GB" in error.message
    assert error.hint and error.hint.startswith("it would fit with ")


def test_what_is_too_large_by_estimate_is_a_warning():
    (warning,) = found(cluster(), ONE)
    assert warning.level == "warning" and "of a100-80gb it may use 76.0 GB" in warning.message


def test_a_type_that_comes_in_two_sizes():
    small = {"zero_stage": 3, "micro_batch_size": 1}
    (warning,) = found(of_type("v100"), EIGHT, model={"dtype": "float32"}, train=small)
    assert "it fits v100-32gb, and not v100-16gb (16 GB)" in warning.message
    assert "cluster.train.constraint" in str(warning.hint)


def test_old_gpus_have_no_bfloat16():
    assert any("v100-16gb, v100-32gb does not compute in bfloat16" in f.message for f in found(of_type("v100"), EIGHT))


def test_gpus_that_nobody_knows_are_a_note():
    for gpu_type, reason in ((None, "does not tell their type"), ("k80", "k80 is not among those that are known")):
        (note,) = found(of_type(gpu_type), EIGHT)
        assert note.level == "note" and reason in note.message and "30.3 GB" in note.message


def test_memory_of_the_host():
    (warning,) = found(cluster(), {**EIGHT, "mem_gb": 8})
    assert (warning.level, warning.where) == ("warning", "cluster.mem_gb")
    assert "13.5 GB of its memory, and 8 are asked for" in warning.message and "mem_gb=13" in str(warning.hint)
    (note,) = found(cluster(), {"gpus_per_node": 8})
    assert note.level == "note" and "none is asked for" in note.message and "mem_gb=21" in str(note.hint)
    offloaded = {"zero_stage": 3, "offload": "all"}
    (warning,) = found(
        with_gpu(nodes=[A100.model_copy(update={"memory_mb": 64_000})]), EIGHT | {"mem_gb": None}, train=offloaded
    )
    assert "the nodes have 67.1 GB" in warning.message


def test_memory_of_this_machine():
    (warning,) = found(None, {"kind": "local", "mem_gb": 1}, host_gb=16.0)
    assert "and this machine has 16.0 GB" in warning.message


def test_nodes_whose_memory_the_site_does_not_tell_have_not_none():
    """RealMemory=1 is Slurm's default."""
    site = with_gpu(nodes=[A100.model_copy(update={"memory_mb": 1})])
    assert not [finding for finding in found(site, {"gpus_per_node": 8}) if finding.level != "note"]
