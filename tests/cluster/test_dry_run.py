"""The dry run tells people the memory of a rank part by part, and that of a model of unknown kind as far as it goes."""

from __future__ import annotations

import pytest

from hpcsft.cluster.dry_run import dry_run, dry_run_text
from hpcsft.inputs import InputFacts, ModelFacts, check_inputs
from hpcsft.plan import make_plan
from hpcsft.spec import parse_spec
from tests.estimate.models import LLAMA_7B, LLAMA_7B_PARAMETERS, shape_of, spec_of


def shown(model: ModelFacts) -> list[str]:
    spec = spec_of(cluster={"kind": "slurm", "gpus_per_node": 8})
    facts = InputFacts(model=model, data_files=["d.jsonl"], data_bytes=1000, num_prompts=0)
    return dry_run_text(dry_run(spec, make_plan(spec), facts, "local", ["train"])).splitlines()


def test_parts_add_up_to_what_is_told():
    lines = shown(
        ModelFacts(architecture="LlamaForCausalLM", num_parameters=LLAMA_7B_PARAMETERS, shape=shape_of(LLAMA_7B))
    )
    first = next(number for number, line in enumerate(lines) if line.startswith("memory per rank"))
    last = next(number for number, line in enumerate(lines) if line.startswith("a checkpoint"))
    assert lines[first] == "memory per rank  about 30.32 GB"
    parts = {" ".join(line.split()[1:]): float(line.split()[0]) for line in lines[first + 1 : last]}
    assert parts.keys() >= {"parameters", "gradients", "optimizer", "activations", "DeepSpeed's buffers"}
    assert sum(parts.values()) == pytest.approx(30.32, abs=0.03)
    assert lines[last] == "a checkpoint     94.34 GB"


def test_an_unknown_kind_says_what_is_missing():
    lines = shown(ModelFacts(architecture="GPT2LMHeadModel", num_parameters=10**9))
    assert any(line.startswith("memory per rank") and line.endswith("and activations on top") for line in lines)
    assert not any(
        line.startswith("memory per rank") for line in shown(ModelFacts(architecture="X", num_parameters=None))
    )


@pytest.mark.parametrize(
    ("price", "told"), [({"input": 10.0, "output": 30.0}, "US dollars"), (None, "price would tell")]
)
def test_what_a_judge_may_cost_is_told_before_anything_is_queued(spec_values, price, told):
    spec_values["evaluate"]["judge"] = {
        "kind": "openai",
        "model": "m",
        "base_url": "http://localhost:1",
        "price": price,
    }
    spec = parse_spec(spec_values)
    document = dry_run(spec, make_plan(spec), check_inputs(spec), "local", ["judge"])
    assert document["judge"]["num_requests"] == 6 * 3 * 2  # prompts, models, orders
    (line,) = [line for line in dry_run_text(document).splitlines() if line.startswith("judge ")]
    assert "at most 36 questions of" in line and told in line


def test_the_environment_of_the_jobs_is_told_and_stands_in_every_script(spec_values):
    """A login node without the module or the image can still show what would be submitted."""
    container = {"runtime": "apptainer", "image": "/images/a.sif"}
    spec_values["cluster"].update(modules=["cuda/12.4"], container=container, network={"interface": "ib0"})
    spec = parse_spec(spec_values)
    plan = make_plan(spec)
    document = dry_run(spec, plan, check_inputs(spec), "slurm", plan.stage_names)
    shown = dry_run_text(document)
    assert "environment      modules cuda/12.4; apptainer /images/a.sif, python3 in it; network ib0\n" in shown
    for stage in document["stages"]:
        script = stage["sbatch"]
        assert "\nload_module cuda/12.4\n" in script
        assert " apptainer exec --no-home " in script and f"--bind {spec.model.path}:{spec.model.path}:ro" in script
        assert ("hpcsft.attempt.address ib0" in script) == (stage["stage"] == "train")
