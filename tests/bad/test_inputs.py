"""What a user is told of bad inputs, before anything is queued: each mistake with its words, and nothing lost or left.

`HPCSFT_KEEP_WORDS=1 python -m pytest tests/bad` writes inputs.txt anew; read the difference before you keep it.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.bad.place import KEEPS, Case, Place, keep, kept, sets, told_of
from tests.launch.command import empty_path

WORDS = Path(__file__).with_name("inputs.txt")
DIALOG = json.dumps({"id": "1", "data": ["Hello", "Hello there"]}) + "\n"


def raw(content: str | bytes) -> Any:
    """A spec's file with this content."""

    def spoil(place: Place) -> None:
        place.raw = content

    return spoil


def lora_without_target(place: Place) -> None:
    place.set("model.lora", {"target_modules": ["query_proj"]})


def cut_weights(place: Place) -> None:
    file = place.model() / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def pickled_weights(place: Place) -> None:
    import pickle

    folder = place.model()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": os.system}, protocol=2))


def no_tokenizer(place: Place) -> None:
    for file in place.model().glob("tokenizer*"):
        file.unlink()


def dangling_link(place: Place) -> None:
    file = place.model() / "model.safetensors"
    file.unlink()
    file.symlink_to("/blobs/gone")


def runs_dir_is_a_file(place: Place) -> None:
    place.set("runs_dir", place.file("taken", "a file"))


def own_code(place: Place) -> None:
    place.config(model_type="new", auto_map={"AutoModel": "modeling.Model"})


def unknown_architecture(place: Place) -> None:
    place.config(model_type="nobody", architectures=["NobodyLM"])


def another_format(place: Place) -> None:
    place.set("data.format", "alpaca")
    place.data("data.jsonl", DIALOG)


def question_without_answers(place: Place) -> None:
    place.set("evaluate.judge.template", place.file("question.txt", "Which is better?"))


CASES = [
    Case("a spec that is not there", lambda place: ("submit", "other.json")),
    Case("a spec that is a folder", lambda place: ("submit", ".")),
    Case("a spec that is cut off", raw('{"name": "tiny", "model": {')),
    Case("a spec that is no text", raw(b"\xff\xfe\x00")),
    Case("a spec that is a list", raw("[]")),
    Case("a spec that is empty", raw("")),
    Case("a number that is none", raw('{"seed": NaN}')),
    Case("a key that stands twice", raw('{"seed": 1, "seed": 2}')),
    Case("a spec without anything", raw("{}")),
    Case("a misspelt field", sets("train.epoch", 3)),
    Case("a section that does not exist", sets("trian", {})),
    Case("a word for a number", sets("train.epochs", "three")),
    Case("no epochs", sets("train.epochs", 0)),
    Case("an unknown choice", sets("train.scheduler", "cosin")),
    Case("a learning rate below zero", sets("train.learning_rate", -1e-5)),
    Case("a name that is a command", sets("name", "$(rm -rf ~)")),
    Case("a name with a line break", sets("name", "a\n#SBATCH --wrap=id")),
    Case("a folder with a quote", sets("runs_dir", "my 'runs'")),
    Case("a partition that is a command", sets("cluster.partition", "gpu;reboot")),
    Case("a time limit in words", sets("cluster.train.time", "12 hours")),
    Case("a variable whose name is a command", sets("cluster.env", {"A=1;reboot": "x"})),
    Case("an sbatch option with a field of its own", sets("cluster.sbatch", {"partition": "gpu"})),
    Case("an sbatch option that hpcsft sets", sets("cluster.sbatch", {"output": "/tmp/x"})),
    Case("an sbatch option with a command", sets("cluster.sbatch", {"exclude": "n1;reboot"})),
    Case("a batch that does not divide", sets("train.global_batch_size", 7)),
    Case("a checkpoint that there will not be", sets("evaluate.checkpoints", ["epoch-9"])),
    Case("offload without its stage", sets("train.offload", "all")),
    Case("a DeepSpeed key that the spec decides", sets("train.deepspeed", {"train_batch_size": 8})),
    Case("a filter that lets nothing through", sets("data.filter", {"min_turns": 6, "max_turns": 2})),
    Case("a key where its name belongs", sets("evaluate.judge.api_key_env", "sk-proj-4f7a9b2c1d")),
    Case("a notification without anybody", sets("notify", {})),
    Case("a webhook that is no address", sets("notify", {"webhook": "hooks.example.org/T0/B0"})),
    Case("several nodes without Slurm", sets("cluster.train.nodes", 2)),
    Case("Slurm where there is none", sets("cluster.kind", "slurm")),
    Case("a stage that does not exist", lambda place: ("submit", "spec.json", "--stages", "trian")),
    Case("an override without a value", lambda place: ("submit", "spec.json", "--set", "train.epochs")),
    Case("an override below a number", lambda place: ("submit", "spec.json", "--set", "seed.value=3")),
    Case("no such model", sets("model.path", "models/llama")),
    Case("a model that is a file", lambda place: place.set("model.path", place.file("model.bin", "x"))),
    Case("a model without a configuration", lambda place: (place.model() / "config.json").unlink()),
    Case("a model that needs code of its own", own_code),
    Case("an architecture that nobody knows", unknown_architecture),
    Case("weights that are cut off", cut_weights),
    Case("weights that are a link to nothing", dangling_link),
    Case("weights that would run a command", pickled_weights),
    Case("a model without a tokenizer", no_tokenizer),
    Case("quantized weights", lambda place: place.config(quantization_config={"quant_method": "gptq", "bits": 4})),
    Case("adapters on layers that are not there", lora_without_target),
    Case("no such data", sets("data.train", ["data/*.jsonl"])),
    Case("data of an unknown kind", lambda place: place.data("data.csv", "a,b\n")),
    Case("data without a row", lambda place: place.data("data.jsonl", "")),
    Case("data that is no JSON", lambda place: place.data("data.jsonl", "Hello\n")),
    Case("data that is no conversation", lambda place: place.data("data.jsonl", '{"text": "Hello"}\n')),
    Case("data that is not UTF-8", lambda place: place.data("data.jsonl", b'{"id": "1", "data": ["\xff", "b"]}\n')),
    Case("data of another format than named", another_format),
    Case("a gzip file that is none", lambda place: place.data("data.jsonl.gz", "not gzip")),
    Case("a gzip file that is cut off", lambda place: place.data("data.jsonl.gz", gzip.compress(DIALOG.encode())[:40])),
    Case("a Parquet file that is none", lambda place: place.data("data.parquet", "PAR")),
    Case("a name of the hub that is none", sets("data.train", ["hub:ultrachat"])),
    Case("a template that is not there", sets("data.template", "mine.jinja")),
    Case("a model without a chat template", sets("data.template", "tokenizer")),
    Case("no such prompts", sets("evaluate.prompts", "alpaca_eval.json")),
    Case("prompts that are no list", lambda place: place.prompts({"instruction": "a"})),
    Case("a prompt without an instruction", lambda place: place.prompts([{"output": "a"}])),
    Case("a prompt that stands twice", lambda place: place.prompts([{"instruction": "a", "output": "b"}] * 2)),
    Case("answers of another model that are not there", sets("evaluate.outputs", {"gpt": "gpt.json"})),
    Case("no such judge", sets("evaluate.judge.model", "models/judge")),
    Case("a judge's question without the answers", question_without_answers),
    Case("a task that no benchmark has", sets("benchmark", {"tasks": ["mmlu_pro_max"]})),
    Case("a folder of runs that is a file", runs_dir_is_a_file),
    Case("no such run to watch", lambda place: ("monitor", "tiny-12345678", "--once")),
    Case("no such run to resume", lambda place: ("resume", "runs/tiny")),
    Case("a folder that is no run", lambda place: ("logs", ".")),
    Case("annotations that are none", lambda place: (place.file("a.json", "{}"), ("score", "a.json"))[1]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_bad_input_is_told_and_nothing_is_lost(
    case: Case, spec_values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # no folder of runs is known from before
    folder = tmp_path / "here"
    folder.mkdir()
    spec_values["runs_dir"] = "runs"
    spec_values["cluster"]["kind"] = "auto"
    text, before, after = told_of(case, Place(folder, spec_values, empty_path(tmp_path / "bin")))
    assert "Traceback" not in text and text.startswith("error: ") and not text.endswith("exit 0\n")
    assert after == before
    if KEEPS:
        keep(WORDS, case.title, text)
    assert text == kept(WORDS)[case.title]


def test_the_kept_words_are_of_these_cases() -> None:
    titles = [case.title for case in CASES]
    assert sorted(kept(WORDS)) == sorted(titles) and len(set(titles)) == len(titles) >= 60
