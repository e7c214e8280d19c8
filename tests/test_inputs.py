"""What submit finds wrong with the files that a spec names, before a job waits a day in the queue to find it.

Model folders have tests of their own, in tests/model_folder.

Every error names the field of the spec and the file; several mistakes are told at once; nothing ends in a traceback.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpcsft.errors import InputError
from hpcsft.evaluate.prompts import load_prompts
from hpcsft.inputs import InputErrors, check_data, check_inputs, check_template
from hpcsft.model_folder.check import check_model
from hpcsft.spec import parse_spec
from tests.model_folder.made import safetensors

ROW = {"id": "1", "data": ["What is cytology?", "The study of cells."]}


def data_refused(text: str, *patterns: object, format: str = "auto") -> list[str]:
    """Check that the data are refused with `text` by an error that names the field; returns its lines."""
    with pytest.raises(InputError, match=text) as caught:
        check_data([str(pattern) for pattern in patterns], format, "data.train")
    assert caught.value.message.startswith("data.train: ")
    return caught.value.lines()


def write_rows(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_data_files_are_found_in_order_and_once(tmp_path):
    second, first = write_rows(tmp_path / "b.jsonl", ROW), write_rows(tmp_path / "a.jsonl", ROW)
    assert check_data([str(tmp_path / "*.jsonl"), str(second)], "auto", "data.train") == [str(first), str(second)]


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.jsonl.gz"])
def test_every_kind_of_file_is_looked_into(name, tmp_path):
    text = json.dumps([ROW]) if ".json." in f"{name}." else json.dumps(ROW)
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert check_data([str(path)], "auto", "data.train") == [str(path)]


def test_no_such_data_file(tmp_path):
    lines = data_refused("no such file", tmp_path / "none.jsonl")
    assert str(tmp_path / "none.jsonl") in lines[0]
    assert lines[1] == "hint: paths are relative to where submit is called"
    data_refused("no such file", tmp_path / "*.jsonl")


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl.bz2"])
def test_an_unknown_kind_of_data_file(name, tmp_path):
    lines = data_refused("unknown kind of file", write_rows(tmp_path / name, ROW))
    assert ".jsonl, .jsonl.gz, .jsonl.zst, .json, .json.gz, .json.zst, .parquet" in lines[1]


def test_a_folder_stands_for_the_data_inside(tmp_path):
    (tmp_path / "a").mkdir()
    data_refused("a: no data inside", tmp_path / "a")
    file = write_rows(tmp_path / "a" / "b.jsonl", ROW)
    assert check_data([str(tmp_path / "a")], "auto", "data.train") == [str(file)]
    bad = write_rows(tmp_path / "a" / "c.jsonl", {"text": 1})
    assert str(bad) in data_refused("row 1: keys text", tmp_path / "a")[0]


@pytest.fixture
def saved(tmp_path) -> Path:
    """What `save_to_disk` writes, as far as the login node looks."""
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"id": {}, "data": {}}}))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (folder / "data.arrow").write_bytes(b"x" * 1000)
    return folder


def test_a_saved_data_set_is_judged_by_its_columns(saved):
    assert check_data([str(saved)], "auto", "data.train") == [str(saved)]
    data_refused("saved: 'messages' is missing, which messages needs; the keys are id, data", saved, format="messages")
    (saved / "dataset_info.json").write_text(json.dumps({"features": {"text": {}}}))
    lines = data_refused("saved: keys text are of no known format", saved)
    assert lines[1] == "hint: see data.format in the README"
    (saved / "dataset_info.json").write_text(json.dumps({"features": None}))
    assert check_data([str(saved)], "auto", "data.train") == [str(saved)]
    (saved / "dataset_info.json").write_text("{")
    data_refused("dataset_info.json: cannot be read: Expecting", saved)


def test_a_saved_data_set_without_its_data(saved):
    (saved / "data.arrow").unlink()
    data_refused("saved: data.arrow is missing", saved)


def test_a_data_set_of_the_hub_is_not_opened():
    assert check_data(["hub:owner/name/en:test"], "auto", "data.train") == ["hub:owner/name/en:test"]
    assert "hub:OWNER/NAME" in data_refused("hub:name: not the name of a data set on the hub", "hub:name")[1]


def test_looking_at_data_sets_loads_nothing_heavy(saved):
    """Nor does it go to the network: a login node answers at once."""
    code = "import sys; from hpcsft.inputs import check_data; check_data(sys.argv[1:], 'auto', 'data.train'); "
    code += "print({'datasets', 'huggingface_hub', 'numpy', 'pyarrow', 'torch'} & set(sys.modules))"
    command = [sys.executable, "-c", code, str(saved), "hub:owner/name"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"


def test_all_kinds_of_data_have_a_size(saved, tmp_path, spec_values):
    file = write_rows(tmp_path / "a.jsonl", ROW)
    spec_values["data"]["train"] = [str(file), str(saved), "hub:owner/name"]
    facts = check_inputs(parse_spec(spec_values))
    assert facts.data_files == spec_values["data"]["train"]
    assert facts.data_bytes == sum(path.stat().st_size for path in [file, *saved.iterdir()])


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_data_file(content, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    assert str(path) in data_refused("empty", path)[0]
    (tmp_path / "a.json").write_text("[]")
    data_refused("empty", tmp_path / "a.json")


def test_one_empty_file_among_good_ones_is_named(tmp_path):
    good, empty = write_rows(tmp_path / "a.jsonl", ROW), write_rows(tmp_path / "b.jsonl")
    assert str(empty) in data_refused("empty", good, empty)[0]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ([1], "row 1: a row is a JSON object, this is list"),
        ({"text": "x"}, "row 1: keys text are of no known format"),
        ({"data": "x"}, "row 1: data is str, expected a list"),
        ({"data": ["only a question"]}, "row 1: turn 1, the last one, is a question without an answer"),
        ({"data": ["a question", " "]}, "row 1: turn 2 is empty"),
        ({"data": ["a question", 7]}, r"row 1: data\[1\] is int, expected a string"),
        ({"messages": [{"role": "assistant", "content": "x"}] * 2}, "row 1: turn 1 is by 'assistant', expected 'user'"),
        ({"messages": ["x"]}, r"row 1: messages\[0\] is str, expected an object"),
        ({"messages": [{"role": "robot", "content": "x"}]}, r"row 1: messages\[0\].role is 'robot', expected one of"),
    ],
)
def test_a_first_row_that_is_no_conversation(row, text, tmp_path):
    lines = data_refused(text, write_rows(tmp_path / "a.jsonl", row))
    assert lines[1] == "hint: see data.format in the README"


def test_the_format_that_the_spec_names_is_insisted_on(tmp_path):
    data_refused("messages is missing, expected a list", write_rows(tmp_path / "a.jsonl", ROW), format="messages")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.jsonl", b"{'data': []}\n", "not valid JSON"),
        ("a.jsonl", b'{"data": ["\xff", "b"]}\n', "not UTF-8 text"),
        ("a.json", b'{"data": ["a", "b"]}', r"a JSON array of rows is expected, this begins with \{"),
        ("a.json", b'[{"data": ["a", "b', "row 1: the file is cut off or damaged here: the array is not closed"),
        ("a.jsonl.gz", b'{"data": ["a", "b"]}\n', "cannot be read: Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b"x" * 1000)[:9], "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b"x" * 1000)[:10] + b"\xff" * 30, "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b"x" * 1000)[:15], "row 1: the file is cut off or damaged here"),
        ("a.jsonl.zst", b'{"data": ["a", "b"]}\n', "cannot be read: ZSTD"),
        ("a.parquet", b"PAR1", "not a readable Parquet file"),
    ],
    ids=[
        "no JSON",
        "no UTF-8",
        "no array",
        "array cut",
        "not gzipped",
        "gzip header",
        "gzip damaged",
        "gzip cut",
        "not zstd",
        "parquet",
    ],
)
def test_data_that_cannot_be_read(name, content, text, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    assert str(path) in data_refused(text, path)[0]


def prompts_refused(text: str, path: Path) -> list[str]:
    with pytest.raises(InputError, match=text) as caught:
        load_prompts(path)
    assert caught.value.message.startswith(f"evaluate.prompts: {path}: ")
    return caught.value.lines()


GOOD = {"instruction": "What is cytology?", "output": "The study of cells."}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"instruction": "a", "output": "b"}, "this is an object"),
        ([], "this is an empty array"),
        (["What?"], "row 0 is a text, no object"),
        ([GOOD, {"output": "b"}], "row 1: 'instruction' is missing or no text"),
        ([{"instruction": "a"}], "row 0: 'output' is missing or no text"),
        ([{"instruction": "a", "output": " "}], "row 0: 'output' is missing or no text"),
        ([{"instruction": 7, "output": "b"}], "row 0: 'instruction' is missing or no text"),
    ],
)
def test_prompts_of_the_wrong_shape(value, text, tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(value))
    assert prompts_refused(text, path)[1].startswith('hint: expected a JSON array of {"instruction"')


def test_prompts_that_cannot_be_read(tmp_path):
    prompts_refused("cannot be read: No such file", tmp_path / "none.json")
    path = tmp_path / "prompts.json"
    path.write_text("[")
    prompts_refused("not valid JSON", path)
    path.write_bytes(b"\xff")
    prompts_refused("not valid JSON", path)


def test_a_repeated_instruction_is_refused(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps([GOOD, {**GOOD, "instruction": "another"}, {**GOOD, "output": "Cells."}]))
    assert "joined on the exact instruction" in prompts_refused("row 2 repeats an instruction", path)[1]


def test_prompts_keep_their_generator_and_dataset(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps([{**GOOD, "generator": "davinci", "dataset": "vicuna"}, {**GOOD, "instruction": "x"}]))
    assert [(prompt.generator, prompt.dataset) for prompt in load_prompts(path)] == [
        ("davinci", "vicuna"),
        ("reference", ""),
    ]


def test_facts_about_good_inputs(spec_values, ultrachat_file, prompts_file, tiny_model):
    facts = check_inputs(parse_spec(spec_values))
    assert facts.data_files == [str(ultrachat_file)]
    assert facts.data_bytes == os.path.getsize(ultrachat_file)
    assert facts.num_prompts == len(json.loads(prompts_file.read_text()))
    assert facts.model == check_model(str(tiny_model), "model.path")


def test_a_run_without_evaluation_needs_no_prompts(spec_values):
    del spec_values["evaluate"]
    assert check_inputs(parse_spec(spec_values)).num_prompts == 0


def test_all_that_is_wrong_is_told_at_once(spec_values, tmp_path):
    spec_values["model"]["path"] = str(tmp_path / "no-model")
    spec_values["data"]["train"] = [str(tmp_path / "no-data.jsonl")]
    spec_values["data"]["validation"] = [str(tmp_path / "no-validation.jsonl")]
    spec_values["evaluate"]["prompts"] = str(tmp_path / "no-prompts.json")
    spec_values["evaluate"]["judge"]["model"] = str(tmp_path / "no-judge")
    with pytest.raises(InputErrors) as caught:
        check_inputs(parse_spec(spec_values))
    fields = [line.split(": ")[1] for line in caught.value.lines() if line.startswith("error: ")]
    assert fields == ["model.path", "data.train", "data.validation", "evaluate.prompts", "evaluate.judge.model"]
    assert all(f"no-{name}" in str(caught.value) for name in ("model", "data", "validation", "prompts", "judge"))


def test_every_missing_data_file_is_told(spec_values, tmp_path):
    spec_values["data"]["train"] = [str(tmp_path / "one.jsonl"), str(tmp_path / "two.jsonl")]
    with pytest.raises(InputErrors) as caught:
        check_inputs(parse_spec(spec_values))
    assert [line for line in caught.value.lines() if line.startswith("error: ")] == [
        f"error: data.train: no such file: {tmp_path / name}" for name in ("one.jsonl", "two.jsonl")
    ]


def test_a_judge_behind_an_api_is_no_folder(spec_values, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    spec_values["evaluate"]["judge"] = {"kind": "openai", "model": "gpt-4o"}
    check_inputs(parse_spec(spec_values))


@pytest.mark.parametrize(("kind", "variable"), [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY")])
def test_a_judge_without_its_key_is_told_before_anything_is_queued(spec_values, monkeypatch, kind, variable):
    """As a warning: the run can wait for a judge, and the key may be for the login node only."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    spec_values["evaluate"]["judge"] = {"kind": kind, "model": "m"}
    monkeypatch.delenv(variable, raising=False)
    (warning,) = check_inputs(parse_spec(spec_values)).warnings
    assert f"{variable} is not set" in warning and "python jobs/judge.py RUN_DIR" in warning
    assert not check_inputs(parse_spec(spec_values), stages=["preprocess", "train", "generate"]).warnings
    monkeypatch.setenv(variable, "x")
    assert not check_inputs(parse_spec(spec_values)).warnings


def test_a_notification_that_no_job_could_send_is_told_before_anything_is_queued(spec_values, monkeypatch):
    monkeypatch.delenv("HOOK", raising=False)
    spec_values["notify"] = {"webhook": "$HOOK", "command": ["no-such-program"]}
    warnings = check_inputs(parse_spec(spec_values), stages=["preprocess"]).warnings
    assert [warning.partition(":")[0] for warning in warnings] == ["notify.webhook", "notify.command"]


def test_a_judge_without_its_package_is_told_too(spec_values, monkeypatch):
    spec_values["evaluate"]["judge"] = {"kind": "openai", "base_url": "http://localhost:1/v1"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (warning,) = check_inputs(parse_spec(spec_values)).warnings
    assert "the package openai is not installed: pip install 'hpcsft[openai]'" in warning


def test_benchmarks_that_nobody_knows_are_told(spec_values):
    spec_values["benchmark"] = {"tasks": ["no_such_task"]}
    with pytest.raises(InputErrors, match="benchmark"):
        check_inputs(parse_spec(spec_values), ["benchmark"])


def test_answers_of_other_models_are_looked_at(spec_values, tmp_path):
    prompts = json.loads(Path(spec_values["evaluate"]["prompts"]).read_text())
    spec_values["evaluate"]["outputs"] = {"falcon": str(tmp_path / "falcon.json")}
    with pytest.raises(InputError, match=r"evaluate\.outputs\.falcon: .*cannot be read"):
        check_inputs(parse_spec(spec_values))
    (tmp_path / "falcon.json").write_text(json.dumps(prompts[1:]))
    with pytest.raises(InputError, match="1 of 6 prompts have no answer"):
        check_inputs(parse_spec(spec_values))
    (tmp_path / "falcon.json").write_text(json.dumps(prompts))
    check_inputs(parse_spec(spec_values))


def test_a_tracker_that_is_not_installed_is_told_before_anything_is_queued(spec_values, monkeypatch):
    spec_values["train"]["trackers"] = ["wandb", "tensorboard"]
    spec = parse_spec(spec_values)
    check_inputs(spec)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"train\.trackers: not installed: wandb, tensorboard"):
        check_inputs(spec, ["train"])


def test_bad_rows_among_good_ones_are_left_to_the_quarantine(tmp_path):
    file = tmp_path / "a.jsonl"
    bad, good = '{"data": ["no answer"]}\n', '{"data": ["q", "a"]}\n'
    file.write_text(2 * bad + good)
    assert check_data([str(file)], "auto", "data.train") == [str(file)]
    file.write_text(3 * bad)
    with pytest.raises(InputError, match=r"a\.jsonl, row 1: "):
        check_data([str(file)], "auto", "data.train")


@pytest.mark.parametrize(("content", "text"), [(None, "No such file or directory"), (b"\xff", "not UTF-8 text")])
def test_a_template_that_cannot_be_read(tmp_path, content, text):
    file = tmp_path / "own.jinja"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=rf"data\.template: .*own\.jinja: cannot be read: {text}"):
        check_template(str(file), str(tmp_path))
    file.write_text("{{ messages }}")
    check_template(str(file), str(tmp_path))


def test_a_model_without_a_chat_template_of_its_own(tmp_path):
    """Told on the login node; wherever transformers may keep one counts."""

    def refused() -> None:
        with pytest.raises(InputError, match=r"data\.template: .*: the tokenizer has no chat template") as error:
            check_template("tokenizer", str(tmp_path))
        assert "user_assistant, chatml or a Jinja file" in error.value.hint

    config = tmp_path / "tokenizer_config.json"
    refused()
    for text in ("{}", "[]", "{", '{"chat_template": null}'):
        config.write_text(text)
        refused()
    config.write_text('{"chat_template": "{{ messages }}"}')
    check_template("tokenizer", str(tmp_path))
    config.unlink()
    template = tmp_path / "chat_template.json"
    template.write_text('{"chat_template": ""}')
    refused()
    template.write_text('{"chat_template": "{{ messages }}"}')
    check_template("tokenizer", str(tmp_path))
    template.unlink()
    (tmp_path / "chat_template.jinja").touch()
    check_template("tokenizer", str(tmp_path))
    for name in ("user_assistant", "chatml"):
        check_template(name, str(tmp_path / "none"))


@pytest.mark.parametrize("name", ["chat_template.jinja", "chat_template.json", "tokenizer_config.json"])
def test_a_chat_template_that_is_found_is_the_one_that_is_used(name, tiny_model, tmp_path):
    from hpcsft.models.tokenizer import load_tokenizer

    folder = shutil.copytree(tiny_model, tmp_path / "copy")
    with pytest.raises(InputError):
        check_template("tokenizer", str(folder))
    text, file = "{{ messages }}", folder / name
    old = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(text if name.endswith(".jinja") else json.dumps({**old, "chat_template": text}))
    check_template("tokenizer", str(folder))
    assert load_tokenizer(str(folder)).chat_template == text


def changed_config(source: Path, folder: Path, **keys: object) -> Path:
    """A copy of the model `source` whose config.json says other things."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **keys}))
    return folder


def test_quantized_weights_are_not_for_training(spec_values, tiny_model, tmp_path):
    folder = changed_config(tiny_model, tmp_path / "gptq", quantization_config={"quant_method": "gptq", "bits": 4})
    spec_values["model"]["path"] = str(folder)
    with pytest.raises(InputErrors, match=r"model\.path: .*gptq: quantized weights \(gptq\) cannot be trained"):
        check_inputs(parse_spec(spec_values))
    check_inputs(parse_spec(spec_values), ["judge"])


def test_only_a_llama_can_be_written_as_one(spec_values, tiny_model, tmp_path):
    spec_values["model"]["export"] = "llama"
    check_inputs(parse_spec(spec_values))
    spec_values["model"]["path"] = str(changed_config(tiny_model, tmp_path / "mistral", model_type="mistral"))
    with pytest.raises(InputErrors, match=r"model\.export: a model of type mistral cannot be written so") as caught:
        check_inputs(parse_spec(spec_values))
    assert "baichuan, llama" in "\n".join(caught.value.lines())


def test_adapters_to_layers_that_are_not_there(spec_values):
    spec_values["model"]["lora"] = {"target_modules": ["query"]}
    with pytest.raises(InputErrors, match=r"model\.lora\.target_modules: no linear layer with the name query"):
        check_inputs(parse_spec(spec_values))


def test_an_adapter_to_an_adapter_is_written_merged(spec_values, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "adapter", ignore=shutil.ignore_patterns("*.safetensors"))
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(tiny_model)}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter_model.safetensors").write_bytes(safetensors({}))
    spec_values["model"] |= {"path": str(folder), "lora": {"export": "adapter"}}
    with pytest.raises(InputErrors, match=r"model\.lora\.export: .*adapter is an adapter itself") as caught:
        check_inputs(parse_spec(spec_values))
    assert '"merged"' in caught.value.lines()[1]
    spec_values["model"]["lora"]["export"] = "merged"
    check_inputs(parse_spec(spec_values))


def test_a_judge_that_is_an_adapter_needs_peft(spec_values, tiny_model, tmp_path, monkeypatch):
    folder = tmp_path / "judge"
    folder.mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(tiny_model)}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    spec_values["evaluate"]["judge"] = {"kind": "local", "model": str(folder)}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputErrors, match=r"evaluate\.judge\.model: .*judge: an adapter, and peft is not installed"):
        check_inputs(parse_spec(spec_values))
