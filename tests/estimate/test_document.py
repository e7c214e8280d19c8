"""`plan`'s document and text: the usual models' figures, warnings of what will not do, any width, nothing cut off."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from hpcsft.estimate.document import plan_document
from hpcsft.estimate.text import print_plan, size
from hpcsft.gpus import gpu_named
from hpcsft.inputs import ModelFacts
from hpcsft.plan import make_plan
from tests.estimate.models import BAICHUAN2_7B, LLAMA_7B, shape_of, spec_of
from tests.estimate.test_work import WORK


def document(config=LLAMA_7B, gpu="a100-80gb", known=True, quota_gb=None, **sections) -> dict:
    sections.setdefault("cluster", {"kind": "slurm", "gpus_per_node": 8, "train": {"nodes": 4}})
    spec = spec_of(**sections)
    shape = shape_of(config) if known else None
    number = shape.num_parameters if shape else None
    model = ModelFacts(architecture=config["architectures"][0], num_parameters=number, shape=shape)
    return plan_document(spec, make_plan(spec), model, WORK, gpu_named(gpu), 0.4, quota_gb)


def text(values: dict, width: int = 200) -> str:
    stream = io.StringIO()
    print_plan(values, Console(file=stream, width=width))
    return stream.getvalue()


def cells(shown: str, gpus: int) -> list[str]:
    return next(line.split()[1:] for line in shown.splitlines() if line.split()[:1] == [str(gpus)])


def test_llama_7b_shows_the_figures_of_the_zero_paper():
    shown = text(document())
    assert "6,738,415,616 parameters" in shown
    assert cells(shown, 1) == ["107.8"] * 4
    assert cells(shown, 8) == ["107.8", "37.1", "25.3", "13.5"]
    assert cells(shown, 32) == ["107.8", "29.5", "16.4", "3.4"]
    assert "all at once they would take 0.79 GB" in shown


def test_the_spec_s_own_number_of_gpus_has_a_row():
    rows = document(BAICHUAN2_7B, cluster={"kind": "slurm", "gpus_per_node": 2})["model_states"]
    assert [row["gpus"] for row in rows[::4]] == [1, 2, 8, 32]
    assert "7,505,973,248 parameters" in text(document(BAICHUAN2_7B))


def test_with_lora_it_says_what_learns():
    values = document(model={"lora": {"target_modules": ["q_proj", "v_proj"], "rank": 8}})
    assert (values["lora"]["trainable_parameters"], values["lora"]["frozen_parameters"]) == (4_194_304, 6_738_415_616)
    shown = " ".join(text(values).split())
    assert "LoRA rank 8, q_proj, v_proj: 4,194,304 parameters learn and 6,738,415,616 frozen" in shown
    assert cells(text(values), 8) == ["13.5", "13.5", "13.5", "1.7"]
    assert document()["lora"] is None and "LoRA" not in text(document())
    assert "upper bound: counted as if all learnt" in text(document(known=False, model={"lora": {}}))


def test_it_is_one_json_document():
    values = document(quota_gb=100)
    assert json.loads(json.dumps(values)) == values
    assert values["model"]["shape"]["hidden_size"] == 4096


@pytest.mark.parametrize("width", [60, 100, 200])
@pytest.mark.parametrize("values", [document(), document(BAICHUAN2_7B, "v100-32gb", quota_gb=1), document(known=False)])
def test_every_width_shows_everything(width, values):
    narrow, wide = (" ".join(text(values, columns).split()) for columns in (width, 500))
    assert all(len(line) <= width for line in text(values, width).splitlines())
    assert sorted("".join(narrow.split())) == sorted("".join(wide.split()))


def test_what_fits_is_told_for_the_usual_gpus_and_the_given_one():
    values = document(gpu="v100-32gb")
    assert [(found["gb"], found["fits"]) for found in values["fits"]] == [(32, True), (40, True), (80, True)]
    assert any("v100-32gb does not compute in bfloat16" in warning for warning in values["warnings"])
    in_float32 = document(gpu="v100-32gb", dtype="float32")
    assert not any("bfloat16" in warning for warning in in_float32["warnings"])
    crowded = document(train={"zero_stage": 0})
    assert [found["fits"] for found in crowded["fits"]] == [False, False]
    assert crowded["hints"][0]["set"] == {"train.zero_stage": 1}
    assert "would fit with train.zero_stage 1:" in " ".join(text(crowded).split())
    assert any("a rank needs about 134.8 GB" in warning for warning in crowded["warnings"])


def test_no_hint_is_said_too():
    shown = text(document(gpu="v100-16gb", train={"zero_stage": 0, "master_weights": True}, data={"max_length": 10**6}))
    assert "not with any of the usual settings" in shown


def test_on_cpus_the_node_s_memory_counts():
    cluster = {"kind": "slurm", "train": {"tasks_per_node": 2, "mem_gb": 64}}
    values = document(cluster=cluster)
    assert values["hints"] == []
    assert any("GB of its memory, and cluster.train.mem_gb is 64" in warning for warning in values["warnings"])
    shown = text(values)
    assert "Memory of one process" in shown and "on 80 GB" not in shown and "GPU-hours   about" not in shown


def test_offload_needs_the_host_s_memory():
    cluster = {"kind": "slurm", "gpus_per_node": 8, "mem_gb": 100}
    values = document(train={"zero_stage": 2, "offload": "optimizer"}, cluster=cluster)
    assert any("cluster.train.mem_gb is 100" in warning for warning in values["warnings"])
    assert "on the host" in text(values)


@pytest.mark.parametrize(("mem_gb", "enough"), [(13, False), (14, True)])
def test_one_copy_of_the_model_passes_through_the_memory_of_a_host(mem_gb: int, enough: bool):
    """Rank 0 alone reads it: eight copies of 13.5 GB would not fit on many nodes."""
    values = document(train={"zero_stage": 3}, cluster={"kind": "slurm", "gpus_per_node": 8, "mem_gb": mem_gb})
    assert ("mem_gb" in " ".join(values["warnings"])) is not enough
    assert "on rank 0's host 13.5 GB" in " ".join(text(values).split())


def test_a_model_of_unknown_kind_still_has_steps():
    values = document(known=False)
    assert (values["memory_per_rank"], values["disk"], values["work"]["gpu_hours"]) == (None, None, None)
    shown = text(values)
    assert "no estimate" in shown and "2,346 = 3 x 782" in shown


def test_a_known_size_of_an_unknown_kind_has_model_states():
    spec = spec_of(cluster={"kind": "slurm", "gpus_per_node": 8})
    model = ModelFacts(architecture="GPT2LMHeadModel", num_parameters=10**9)
    values = plan_document(spec, make_plan(spec), model, WORK, gpu_named("h100"), 0.4)
    assert values["memory_per_rank"]["activations_bytes"] is None
    shown = " ".join(text(values).split())
    assert "? not known: the model is of another kind than Llama" in shown and "GPU-hours not estimated" in shown


@pytest.mark.parametrize(
    ("num_bytes", "shown"),
    [(0, "0.00 MB"), (9e4, "0.09 MB"), (99e6, "99.0 MB"), (5e8, "0.50 GB"), (94.3e9, "94.3 GB"), (1.2e12, "1.20 TB")],
)
def test_sizes_have_three_digits_or_so(num_bytes, shown):
    assert size(num_bytes) == shown
