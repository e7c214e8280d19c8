"""The spec as a whole: rules over several sections, one source for every setting, and the digest that names the run.

Two specs with one digest would share a run directory and mix their results; one spec with two would train twice.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from hpcsft.errors import SpecError
from hpcsft.plan import make_plan
from hpcsft.spec import ExperimentSpec, parse_spec
from hpcsft.spec.cluster import RetriesSpec
from hpcsft.spec.evaluate import JudgeSpec
from hpcsft.spec.overrides import KNOWN, OWNED_BY_SPEC, REFUSED, ZERO_3
from hpcsft.spec.sbatch_options import SBATCH_DERIVED, SBATCH_OWNED
from hpcsft.train.deepspeed_config import deepspeed_config
from tests.spec.values import changed, minimal


def errors_of(values: dict[str, Any]) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(values)
    return [line for line in caught.value.lines() if line.startswith("error: ")]


STAGE_VALUES = {
    "partition": "cpu",
    "account": "lab",
    "qos": "short",
    "constraint": "a100",
    "cpus_per_task": 3,
    "mem_gb": 1.5,
    "time": "00:10:00",
}
OTHER_VALUES: dict[str, Any] = {
    "name": "other",
    "runs_dir": "elsewhere",
    "seed": 43,
    "model.path": "other",
    "model.dtype": "float32",
    "model.attention": "eager",
    "model.gradient_checkpointing": False,
    "model.export": "llama",
    "model.lora.rank": 8,
    "model.lora.alpha": 16,
    "model.lora.dropout": 0.1,
    "model.lora.target_modules": ["q_proj"],
    "model.lora.export": "adapter",
    "data.train": ["other.jsonl"],
    "data.validation": ["v.jsonl"],
    "data.format": "messages",
    "data.sample": 0.5,
    "data.template": "chatml",
    "data.mask": "last_turn",
    "data.max_length": 512,
    "data.overlong": "drop",
    "data.packing": False,
    "data.filter.min_turns": 4,
    "data.filter.max_turns": 14,
    "data.filter.min_tokens": 30,
    "data.filter.max_tokens": 9000,
    "data.max_bad_share": 0.5,
    "data.cache": False,
    "train.epochs": 4,
    "train.global_batch_size": 32,
    "train.micro_batch_size": 1,
    "train.learning_rate": 2e-5,
    "train.scheduler": "linear",
    "train.warmup_ratio": 0.1,
    "train.weight_decay": 0.1,
    "train.max_skipped_steps": 3,
    "train.trackers": ["wandb"],
    "train.wandb_project": "other",
    "train.max_grad_norm": 0.5,
    "train.zero_stage": 3,
    "train.offload": "optimizer",
    "train.deepspeed": {"wall_clock_breakdown": True},
    "train.checkpoint.every_steps": 7,
    "train.checkpoint.every_minutes": 10.0,
    "train.checkpoint.keep_last": 3,
    "train.checkpoint.background": False,
    "train.hang_after_s": 900.0,
    "evaluate.prompts": "other.json",
    "evaluate.checkpoints": ["base"],
    "evaluate.shards": 2,
    "evaluate.outputs": {"falcon-7b": "falcon.json"},
    "evaluate.leaderboards": ["leaderboard.csv"],
    **{f"evaluate.checks.{kind}": 0.5 for kind in ("echo", "empty", "leftover", "loop", "cut")},
    "evaluate.generation.max_new_tokens": 64,
    "evaluate.generation.temperature": 0.7,
    "evaluate.generation.top_k": 50,
    "evaluate.generation.top_p": 0.9,
    "evaluate.generation.prompt_style": "raw",
    "evaluate.generation.stop": ["\n\nQ:"],
    "evaluate.generation.batching": "sorted",
    "evaluate.generation.batch_size": 2,
    "evaluate.judge.kind": "local",
    "evaluate.judge.model": "gpt-4o",
    "evaluate.judge.api": "chat",
    "evaluate.judge.base_url": "http://localhost:8000/v1",
    "evaluate.judge.api_key_env": "OTHER_KEY",
    "evaluate.judge.api_key_file": "keys/judge",
    "evaluate.judge.template": "question.txt",
    "evaluate.judge.evaluator": "evaluators/alpaca_eval_gpt4",
    "evaluate.judge.orders": "random",
    "evaluate.judge.order_seed": 1,
    "evaluate.judge.temperature": 1.0,
    "evaluate.judge.max_tokens": 1,
    "evaluate.judge.max_unparsed": 1,
    "evaluate.judge.max_tries": 1,
    "evaluate.judge.timeout_s": 10.0,
    "evaluate.judge.price.input": 10.0,
    "evaluate.judge.price.output": 30.0,
    "evaluate.judge.max_cost_usd": 20.0,
    "evaluate.judge.max_concurrency": 2,
    "evaluate.judge.batch_size": 2,
    "benchmark.tasks": ["arc_easy", "mmlu"],
    "benchmark.include_path": "own-tasks",
    "benchmark.checkpoints": ["base"],
    "benchmark.num_fewshot": 0,
    "benchmark.limit": 10,
    "benchmark.batch_size": 2,
    "benchmark.apply_chat_template": True,
    "cluster.kind": "slurm",
    "cluster.gpus_per_node": 4,
    "cluster.modules": ["cuda/12.4"],
    "cluster.container.runtime": "singularity",
    "cluster.container.image": "/images/other.sif",
    "cluster.container.mounts": ["/scratch"],
    "cluster.container.options": ["--rocm"],
    "cluster.container.python": "/opt/conda/bin/python",
    "cluster.network.interface": "ib0",
    "cluster.network.infiniband": False,
    "cluster.network.ports": [30000, 30010],
    "cluster.setup": ["module load cuda"],
    "cluster.env": {"A": "1"},
    "cluster.array_parallelism": 3,
    "cluster.sbatch": {"exclude": "n7"},
    **{f"cluster.retries.{field}": 7 for field in RetriesSpec.model_fields},
    "cluster.preprocess.tasks": 2,
    "cluster.train.nodes": 2,
    "cluster.train.tasks_per_node": 2,
    **{f"cluster.{stage}.gpus_per_node": 1 for stage in ("train", "generate", "benchmark", "judge")},
    **{f"cluster.{key}": value for key, value in STAGE_VALUES.items()},
    **{
        f"cluster.{stage}.{key}": value
        for stage in ("preprocess", "train", "generate", "benchmark", "judge", "report")
        for key, value in STAGE_VALUES.items()
    },
    "notify.command": ["mail", "me@example.org"],
    "notify.webhook": "$OTHER",
    "notify.on": ["failed"],
}
"""For every field a valid value other than its default."""

APART = {"train.optimizer", "train.master_weights", "cluster.venv", "cluster.conda", "train.max_steps"}
"""The first has no other value, the second does not go with float32, the next two not with a container, and
the last one with one epoch only."""

FULL = minimal(
    evaluate={
        "prompts": "p.json",
        "generation": {"temperature": 1.0},
        "judge": {"price": {"input": 1.5, "output": 2.0}},
    },
    benchmark={"tasks": ["arc_easy"]},
    cluster={"container": {"runtime": "apptainer", "image": "/images/a.sif"}},
    notify={"webhook": "$HOOK"},
)


def leaves(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted paths of all fields that are no sections."""
    found = []
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        found += leaves(section, f"{prefix}{name}.") if section else [prefix + name]
    return found


def test_the_table_of_other_values_is_whole():
    assert sorted(set(leaves(ExperimentSpec)) - APART) == sorted(OTHER_VALUES)


def test_the_same_spec_has_the_same_digest():
    """Whatever the order of the keys, and whether defaults are spelled out."""
    spec = parse_spec(FULL)
    assert parse_spec(dict(reversed(FULL.items()))).digest() == spec.digest()
    assert parse_spec(spec.model_dump()).digest() == spec.digest()
    assert parse_spec(changed(FULL, "train.epochs", 3)).digest() == spec.digest()
    assert re.fullmatch(r"[0-9a-f]{8}", spec.digest())


@pytest.mark.parametrize("path", ["cluster.env", "cluster.sbatch", "train.deepspeed"])
def test_the_order_of_free_keys_does_not_count(path):
    one, other = ({key: "1" for key in keys} for keys in (("x", "y"), ("y", "x")))
    assert parse_spec(changed(FULL, path, one)).digest() == parse_spec(changed(FULL, path, other)).digest()


@pytest.mark.parametrize("path", [path for path in OTHER_VALUES if not path.startswith("notify.")])
def test_another_value_anywhere_is_another_digest(path):
    assert parse_spec(changed(FULL, path, OTHER_VALUES[path])).digest() != parse_spec(FULL).digest()


@pytest.mark.parametrize("path", OTHER_VALUES)
def test_what_is_written_is_read_back_the_same(path):
    """spec.json is all that the jobs have."""
    spec = parse_spec(changed(FULL, path, OTHER_VALUES[path]))
    again = ExperimentSpec.model_validate_json(spec.model_dump_json())
    assert again == spec and again.digest() == spec.digest()


@pytest.mark.parametrize("sample", [1, 1.0, 2, 0.5])
def test_a_number_of_rows_and_a_share_of_them_stay_apart(sample):
    """1 is one conversation, 1.0 all of them."""
    spec = parse_spec(changed(FULL, "data.sample", sample))
    again = ExperimentSpec.model_validate_json(spec.model_dump_json())
    assert (type(spec.data.sample), type(again.data.sample)) == (type(sample), type(sample))


@pytest.mark.parametrize("value", [True, 1, "1"])
def test_sbatch_values_keep_their_kind(value):
    """true is a bare option, 1 and "1" are arguments."""
    spec = parse_spec(minimal(cluster={"sbatch": {"x": value}}))
    again = ExperimentSpec.model_validate_json(spec.model_dump_json())
    assert type(again.cluster.sbatch["x"]) is type(value)


def test_the_run_directory_has_name_and_digest(tmp_path):
    spec = parse_spec(minimal(name="a", runs_dir=str(tmp_path)))
    assert spec.run_path == f"{tmp_path}/a-{spec.digest()}"


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    """The jobs run in another folder. What is no local path stays as it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    values = {
        "runs_dir": "runs",
        "model": {"path": "./models/../m"},
        "data": {"train": ["d/*.jsonl", "/abs.jsonl", "~/e.jsonl"], "validation": ["v.jsonl"]},
        "evaluate": {
            "prompts": "p.json",
            "judge": {"kind": "local", "model": "judge", "template": "q.txt"},
            "outputs": {"falcon": "f.json"},
            "leaderboards": ["l.csv"],
        },
        "benchmark": {"tasks": ["own"], "include_path": "tasks"},
    }
    spec = parse_spec(values)
    here = str(tmp_path)
    assert spec.runs_dir == f"{here}/runs"
    assert spec.model.path == f"{here}/m"
    assert spec.data.train == [f"{here}/d/*.jsonl", "/abs.jsonl", "/home/someone/e.jsonl"]
    assert spec.data.validation == [f"{here}/v.jsonl"]
    assert spec.evaluate and spec.evaluate.prompts == f"{here}/p.json"
    assert (spec.evaluate.judge.model, spec.evaluate.judge.template) == (f"{here}/judge", f"{here}/q.txt")
    assert (spec.evaluate.outputs, spec.evaluate.leaderboards) == ({"falcon": f"{here}/f.json"}, [f"{here}/l.csv"])
    assert spec.benchmark and spec.benchmark.include_path == f"{here}/tasks"
    hosted = parse_spec(changed(values, "evaluate.judge", {"kind": "openai", "model": "gpt-4o"}))
    assert hosted.evaluate and hosted.evaluate.judge.model == "gpt-4o"
    judged_as = parse_spec(changed(values, "evaluate.judge", {"evaluator": "evaluators/chatgpt"}))
    assert judged_as.evaluate and judged_as.evaluate.judge.evaluator == f"{here}/evaluators/chatgpt"


def test_a_folder_that_no_batch_script_may_hold_is_refused(tmp_path, monkeypatch):
    """The spec says `runs`, but the folder in which submit is called becomes part of it."""
    folder = tmp_path / "my $(touch x) project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (line,) = errors_of(minimal())
    assert line.startswith("error: runs_dir: ") and "this path is written into batch scripts" in line


@pytest.mark.parametrize("name", ["epoch-4", "epoch-0", "epoch-01", "Base", "latest"])
def test_checkpoints_that_will_not_exist(name):
    chosen = {"checkpoints": ["base", name]}
    values = minimal(evaluate={"prompts": "p.json", **chosen}, benchmark={"tasks": ["t"], **chosen})
    assert errors_of(values) == [
        f"error: {section}.checkpoints: no checkpoint '{name}'; there will be base, epoch-1, epoch-2, epoch-3"
        for section in ("evaluate", "benchmark")
    ]


@pytest.mark.parametrize(
    ("tasks", "text"),
    [
        ([], "must not be empty"),
        (["a", "b", "a"], "each task once"),
        (["../a"], "must match pattern"),
        (["mmlu_*"], "must match pattern"),
    ],
)
def test_tasks_of_a_benchmark_become_names_of_files(tasks, text):
    (line,) = errors_of(minimal(benchmark={"tasks": tasks}))
    assert line.startswith("error: benchmark.tasks") and text in line


def test_another_model_has_a_name_of_its_own():
    values = minimal(evaluate={"prompts": "p.json", "outputs": {"epoch-1": "a.json", "falcon": "b.json"}})
    assert errors_of(values) == [
        "error: evaluate.outputs: 'epoch-1' is a checkpoint of this run; give the other model another name"
    ]
    del values["evaluate"]["outputs"]["epoch-1"]
    assert parse_spec(values).judged_names() == ["base", "epoch-1", "epoch-2", "epoch-3", "falcon"]


@pytest.mark.parametrize(
    ("section", "given", "told"),
    [
        ("generation", {"top_k": 50}, "top_k and top_p are for sampling"),
        ("generation", {"top_p": 0.9}, "top_k and top_p are for sampling"),
        ("generation", {"temperature": 1, "batching": "continuous"}, "would hang on its schedule"),
        ("judge", {"template": "a", "evaluator": "b"}, "an evaluator brings its own template"),
        ("judge", {"kind": "local", "model": "m", "evaluator": "b"}, "AlpacaEval's evaluators are for endpoints"),
        ("judge", {"max_cost_usd": 5}, "max_cost_usd needs price"),
        ("judge", {"api_key_env": "sk-abc"}, "never the key itself"),
        ("judge", {"api_key_file": "sk-abc"}, "never the key itself"),
        ("judge", {"api_key_file": "/k", "api_key_env": "K"}, "the key is in one of them; leave the other out"),
        ("judge", {"base_url": "https://me:pw@host/v1"}, "an address without user, password or key"),
        ("judge", {"base_url": "https://host/v1?api_key=abc"}, "an address without user, password or key"),
        ("checks", {"echo": 20}, "less than or equal to 1"),
    ],
)
def test_settings_of_the_evaluation_that_do_not_go_together(section, given, told):
    (line, *_) = errors_of(minimal(evaluate={"prompts": "p.json", section: given}))
    assert line.startswith(f"error: evaluate.{section}") and told in line


def test_the_key_of_a_judge_is_that_of_its_kind():
    assert JudgeSpec().key_variable == "OPENAI_API_KEY"
    assert JudgeSpec(kind="anthropic").key_variable == "ANTHROPIC_API_KEY"
    assert JudgeSpec(kind="anthropic", api_key_env="MINE").key_variable == "MINE"


def test_evaluated_checkpoints_are_in_the_order_of_training():
    assert parse_spec(minimal()).evaluated_checkpoints() == parse_spec(minimal()).benchmarked_checkpoints() == []
    some = parse_spec(minimal(benchmark={"tasks": ["t"], "checkpoints": ["epoch-3", "base"]}))
    assert some.benchmarked_checkpoints() == ["base", "epoch-3"] and some.evaluated_checkpoints() == []
    assert parse_spec(changed(FULL, "train.epochs", 2)).evaluated_checkpoints() == ["base", "epoch-1", "epoch-2"]
    chosen = changed(FULL, "evaluate.checkpoints", ["epoch-3", "base"])
    assert parse_spec(chosen).evaluated_checkpoints() == ["base", "epoch-3"]


@pytest.mark.parametrize(
    ("offload", "zero_stage", "text"),
    [
        *(("none", stage, None) for stage in (0, 1, 2, 3)),
        ("optimizer", 0, "'optimizer' needs zero_stage 1, 2 or 3"),
        *(("optimizer", stage, None) for stage in (1, 2, 3)),
        *(("all", stage, "'all' needs zero_stage 3; 'optimizer' works with 1, 2 and 3") for stage in (0, 1, 2)),
        ("all", 3, None),
    ],
)
def test_offload_and_zero_stage(offload, zero_stage, text):
    values = minimal(train={"offload": offload, "zero_stage": zero_stage})
    if text:
        assert errors_of(values) == [f"error: train.offload: {text}"]
    else:
        assert parse_spec(values).train.offload == offload


@pytest.mark.parametrize(
    ("field", "value"), [("template", "chatml"), ("template", "own.jinja"), ("mask", "per_turn"), ("mask", "last_turn")]
)
def test_the_reference_splitter_goes_with_the_rows_of_the_reference(field, value):
    wanted = {"template": "user_assistant", "mask": "all_turns"}
    data = {"train": ["d"], "overlong": "split_reference"}
    assert parse_spec(minimal(data={**data, **wanted})).data.overlong == "split_reference"
    (line,) = errors_of(minimal(data={**data, **wanted, field: value}))
    assert line.startswith(f"error: data.{field}: must be '{wanted[field]}' with overlong split_reference; given '")


@pytest.mark.parametrize("unit", ["turns", "tokens"])
def test_a_filter_that_nothing_passes_is_refused(unit):
    limits = {f"min_{unit}": 5, f"max_{unit}": 4}
    (line,) = errors_of(minimal(data={"train": ["d"], "filter": limits}))
    assert line.startswith(f"error: data.filter: min_{unit} 5 is more than max_{unit} 4: no conversation would be left")
    assert parse_spec(minimal(data={"train": ["d"], "filter": {**limits, f"max_{unit}": 5}}))


@pytest.mark.parametrize("name", ["chat.jinja", "a/b.jinja2", "x.j2"])
def test_a_template_may_be_a_jinja_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = parse_spec(minimal(data={"train": ["d"], "template": name}))
    assert spec.data.template == str(tmp_path / name)
    assert parse_spec(minimal(data={"train": ["d"], "template": "chatml"})).data.template == "chatml"


def test_another_template_is_refused_with_all_that_is_allowed():
    (line,) = errors_of(minimal(data={"train": ["d"], "template": "chatlm"}))
    allowed = "must be 'user_assistant', 'tokenizer' or 'chatml' or a Jinja file ending in .jinja, .jinja2, .j2"
    assert line == f'error: data.template: {allowed}; given "chatlm"'


def test_names_on_the_hub_are_no_paths():
    spec = parse_spec(minimal(data={"train": ["hub:owner/name@v1:train_sft"], "validation": ["hub:owner/name:test"]}))
    assert spec.data.train == ["hub:owner/name@v1:train_sft"] and spec.data.validation == ["hub:owner/name:test"]


def nested(key: str, value: Any) -> dict[str, Any]:
    return changed({}, key, value)


@pytest.mark.parametrize("value", [{"enabled": True}, 0, False, None], ids=repr)
@pytest.mark.parametrize("key", OWNED_BY_SPEC)
def test_deepspeed_settings_that_the_spec_decides(key, value):
    """Whatever the value: null would take the setting away."""
    (line,) = errors_of(minimal(train={"deepspeed": nested(key, value)}))
    assert line.startswith(f"error: train.deepspeed: {key} is decided by {OWNED_BY_SPEC[key]}; set it there")


def test_a_section_of_deepspeed_cannot_be_replaced_as_a_whole():
    """Its stage would go with it."""
    assert errors_of(minimal(train={"deepspeed": {"zero_optimization": 3}}))


def test_all_deepspeed_settings_that_the_spec_decides_are_told():
    both = {"fp16": {"enabled": True}, "zero_optimization": {"stage": 3}}
    text = " ".join(errors_of(minimal(train={"deepspeed": both})))
    assert "fp16 is decided by" in text and "zero_optimization.stage is decided by" in text


def test_every_setting_that_the_spec_derives_is_refused_in_deepspeed():
    """The table of owned keys and the configuration that is made must not drift apart."""
    spec = parse_spec(minimal(train={"zero_stage": 3, "offload": "all"}))
    made = deepspeed_config(spec, 1, on_gpu=False)
    free = {"steps_per_print", "timers", "zero_force_ds_cpu_optimizer"}
    keys = {key for key in made if key != "zero_optimization"} - free
    keys |= {f"zero_optimization.{key}" for key in made["zero_optimization"]}
    assert keys <= set(OWNED_BY_SPEC)


@pytest.mark.parametrize("key", REFUSED)
def test_settings_that_would_change_what_a_step_means_are_refused(key):
    section, _, name = key.rpartition(".")
    (line,) = errors_of(minimal(train={"deepspeed": {section: {name: True}} if section else {name: True}}))
    assert line.startswith(f"error: train.deepspeed: {key} may not be given: {REFUSED[key]}")


def test_a_tracker_is_named_once():
    (line,) = errors_of(minimal(train={"trackers": ["wandb", "wandb"]}))
    assert line.startswith("error: train.trackers: each tracker once")


def test_misspelt_deepspeed_settings_are_found():
    """DeepSpeed passes over some of them in silence, and refuses others on the node, after the queue."""
    both = {"wall_clock_breakdwn": True, "zero_optimization": {"reduce_buket_size": 1}}
    (line,) = errors_of(minimal(train={"deepspeed": both}))
    assert "wall_clock_breakdwn: DeepSpeed has no such key; did you mean wall_clock_breakdown?" in line
    assert "zero_optimization.reduce_buket_size: DeepSpeed has no such key; did you mean" in line
    assert "zero_optimization.reduce_bucket_size?" in line
    newer = {"a_key_of_tomorrow": 1, "zero_optimization": {"something_else": 2}}
    assert parse_spec(minimal(train={"deepspeed": newer})).train.deepspeed == newer


@pytest.mark.parametrize("key", ["stage3_max_live_parameters", "param_persistence_threshold"])
def test_settings_of_zero_3_are_refused_with_another_stage(key):
    given = {"deepspeed": {"zero_optimization": {key: 1000}}}
    (line,) = errors_of(minimal(train={"zero_stage": 2, **given}))
    assert f"zero_optimization.{key} has no effect with train.zero_stage 2, only with 3" in line
    parse_spec(minimal(train={"zero_stage": 3, **given}))


def test_deepspeed_knows_the_settings_that_are_known_here():
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    fields = DeepSpeedZeroConfig.model_fields
    names = {*fields, *(field.alias for field in fields.values())}
    ours = {key.removeprefix("zero_optimization.") for key in (*KNOWN, *OWNED_BY_SPEC, *REFUSED) if "." in key}
    assert {key for key in ours if not key.startswith("stage3_")} <= names
    assert set(ZERO_3) <= names


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"model": {"path": "m", "dtype": "float32"}}, "false is for model.dtype bfloat16"),
        ({"train": {"zero_stage": 0}}, "false needs zero_stage 1, 2 or 3 and offload none"),
        ({"train": {"offload": "optimizer"}}, "false needs zero_stage 1, 2 or 3 and offload none"),
    ],
)
def test_where_there_can_be_no_weights_without_masters(sections, told):
    values = minimal(**sections)
    values["train"] = {**values.get("train", {}), "master_weights": False}
    (line,) = errors_of(values)
    assert line.startswith(f"error: train.master_weights: {told}")


def test_without_master_weights_everything_is_bfloat16_and_the_plan_warns():
    spec = parse_spec(minimal(train={"master_weights": False}))
    made = deepspeed_config(spec, 32, on_gpu=True)
    assert made["bf16"] == {"enabled": True, "bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}
    assert "fused" not in made["optimizer"]["params"]
    (warning,) = make_plan(spec).warnings
    assert warning.startswith("train.master_weights is false") and "98%" in warning


def test_other_deepspeed_settings_are_merged():
    further = {"wall_clock_breakdown": True, "zero_optimization": {"overlap_comm": False}}
    spec = parse_spec(minimal(train={"deepspeed": further}))
    made = deepspeed_config(spec, 1, on_gpu=True)
    assert made["wall_clock_breakdown"] is True
    assert made["zero_optimization"] == {"stage": 2, "overlap_comm": False}


@pytest.mark.parametrize("option", SBATCH_OWNED)
def test_sbatch_options_with_a_field_of_their_own(option):
    (line,) = errors_of(minimal(cluster={"sbatch": {option: "1"}}))
    assert line.startswith(f"error: cluster.sbatch: --{option} has a field of its own: cluster.{SBATCH_OWNED[option]}")


@pytest.mark.parametrize("field", SBATCH_OWNED.values())
def test_the_fields_that_sbatch_options_point_to_exist(field):
    assert f"cluster.{field}" in OTHER_VALUES


@pytest.mark.parametrize("option", SBATCH_DERIVED)
def test_sbatch_options_that_are_derived(option):
    (line,) = errors_of(minimal(cluster={"sbatch": {option: "1"}}))
    assert line.startswith(f"error: cluster.sbatch: --{option} is set by hpcsft")


def test_every_field_says_what_it_means():
    """`hpcsft schema` and the README's table print it. A field that says the same as its section refers to it."""
    schema = ExperimentSpec.model_json_schema()
    sections = {"ExperimentSpec": schema, **schema["$defs"]}
    texts = {name: model.get("description", "") for name, model in sections.items()}
    for section, model in sections.items():
        for name, field in model["properties"].items():
            text = field.get("description") or sections[field["$ref"].rpartition("/")[2]]["description"]
            texts[f"{section}.{name}"] = text
    assert [name for name, text in texts.items() if len(text) < 10] == []


def test_every_other_value_fits_its_section():
    """All that go together are a spec, so that none of the tests above passes for the wrong reason."""
    values = FULL
    for path, value in OTHER_VALUES.items():
        if path not in ("model.lora.export", "evaluate.judge.evaluator", "evaluate.judge.api_key_env"):  # tested apart
            values = changed(values, path, value)
    spec = parse_spec(values)
    assert Path(spec.runs_dir).name == "elsewhere"


def test_a_number_of_steps_goes_with_one_epoch():
    """Which checkpoints there will be is part of the plan, and how many steps an epoch has is known long after it."""
    spec = parse_spec(minimal(train={"epochs": 1, "max_steps": 20}))
    assert spec.all_checkpoints() == ["base", "epoch-1"]
    assert [spec.train.epoch_steps(steps) for steps in (7, 20, 100)] == [7, 20, 20]
    assert spec.digest() != parse_spec(minimal(train={"epochs": 1})).digest()
    (line,) = errors_of(minimal(train={"max_steps": 20}))
    assert line.startswith("error: train.max_steps: needs train.epochs 1, given 3")


def test_an_adapter_is_no_llama():
    model = {"path": "m", "export": "llama", "lora": {"export": "merged"}}
    assert parse_spec(minimal(model=model)).model.lora.export == "merged"
    model["lora"]["export"] = "adapter"
    (line,) = errors_of(minimal(model=model))
    assert line == 'error: model.export: "llama" writes a whole model; with it model.lora.export has to be "merged"'


def test_a_further_field_of_a_later_version_changes_no_name():
    """What is at its default is left out of the digest, however it came to be there."""
    bare, told = parse_spec(minimal()), parse_spec(minimal(train={"epochs": 3}, cluster={"modules": []}))
    assert told.digest() == bare.digest() != parse_spec(minimal(train={"epochs": 2})).digest()
