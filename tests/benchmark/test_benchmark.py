"""Guards the figures and the hours behind them: they are those of lm-evaluation-harness, equal to what plain
transformers gives, and what is finished is never measured again, whatever stops the stage.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="pip install 'hpcsft[lm-eval]'")

from hpcsft.benchmark.benchmark import benchmark
from hpcsft.benchmark.results import read_results, results_file, task_file
from hpcsft.errors import InputError, Stopped
from hpcsft.records import read_json, write_json
from hpcsft.rundir import RunDir
from tests.prepared import begun, new_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def values(spec_values, task_folder) -> dict[str, Any]:
    """A spec that benchmarks the base model, which needs no training, at `choice` and `answer`."""
    spec_values["benchmark"] = {
        "tasks": ["choice", "answer"],
        "include_path": str(task_folder),
        "checkpoints": ["base"],
        "batch_size": 4,
    }
    return spec_values


def measured(run: RunDir) -> dict[str, Any]:
    return read_json(results_file(run, "base"))


def run_stage(values: dict[str, Any], **section: Any) -> dict[str, Any]:
    """Run the stage for `values` with `section` over its benchmark; returns results.json."""
    run = new_run({**values, "benchmark": {**values["benchmark"], **section}})
    benchmark(begun(run, "benchmark"))
    return measured(run)


@pytest.fixture(scope="module")
def plain(tiny_model) -> Any:
    """(model, tokenizer) as plain transformers loads them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(tiny_model)


def log_likelihood(plain: Any, context: str, continuation: str) -> float:
    """Of the tokens of `continuation` after `context`, computed alone and without padding."""
    import torch

    model, tokenizer = plain
    given, whole = (tokenizer(text)["input_ids"] for text in (context, context + continuation))
    with torch.no_grad():
        log_p = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return sum(log_p[place - 1, whole[place]].item() for place in range(len(given), len(whole)))


def choice_figures(plain: Any, rows: list[dict[str, Any]], context: str, space: str) -> dict[str, dict[str, float]]:
    """Accuracy by log-likelihood, and by log-likelihood per character; standard error of a mean."""
    right: dict[str, list[float]] = {"acc,none": [], "acc_norm,none": []}
    for row in rows:
        scores = [log_likelihood(plain, context.format(**row), space + choice) for choice in row["choices"]]
        by_length = [score / len(choice) for score, choice in zip(scores, row["choices"], strict=True)]
        for name, each in (("acc,none", scores), ("acc_norm,none", by_length)):
            right[name].append(float(max(range(4), key=each.__getitem__) == row["answer"]))
    return {
        name: {"value": statistics.mean(hits), "stderr": statistics.stdev(hits) / len(hits) ** 0.5}
        for name, hits in right.items()
    }


def test_the_figures_are_those_of_plain_transformers(values, rows, plain):
    """Through the job as a user runs it, from another folder, with files that are named relative to include_path."""
    run = new_run({**values, "benchmark": {**values["benchmark"], "tasks": ["choice"]}})
    command = [sys.executable, str(ROOT / "jobs" / "benchmark.py"), str(run.path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120, env=os.environ.copy())
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stdout + done.stderr, "no progress bars in log files"
    found = measured(run)
    assert found["tasks"]["choice"] == {
        name: pytest.approx(figure)
        for name, figure in choice_figures(plain, rows, "Question: {question}\nAnswer:", " ").items()
    }
    assert 0 < found["tasks"]["choice"]["acc,none"]["value"] < 1
    assert found["num_rows"] == {"choice": len(rows)} and found["num_fewshot"] == {"choice": 0}
    assert found["higher_is_better"] == {"choice": {"acc": True, "acc_norm": True}}
    progress = run.read_status("benchmark", 0, 1).progress
    assert (progress.done, progress.total, progress.unit) == (1, 1, "tasks")


def test_in_the_chat_template_of_training_every_checkpoint_is_asked_alike(values, rows, plain):
    """The base model's folder has no template of its own. The harness counts the last line end to the answer."""
    values["data"]["template"] = "chatml"
    found = run_stage(values, tasks=["choice"], apply_chat_template=True)
    context = "<|im_start|>user\nQuestion: {question}\nAnswer:<|im_end|>\n<|im_start|>assistant"
    assert found["tasks"]["choice"] == {
        name: pytest.approx(figure) for name, figure in choice_figures(plain, rows, context, "\n").items()
    }
    assert found["settings"]["apply_chat_template"] is True


def test_a_template_that_no_server_could_render_is_refused(values, monkeypatch):
    monkeypatch.setattr("hpcsft.benchmark.benchmark.chat_template", lambda *arguments: None)
    with pytest.raises(InputError, match=r"apply_chat_template: no Jinja text gives the tokens of data\.template"):
        run_stage(values, apply_chat_template=True)


def test_generated_answers_are_compared_with_what_the_task_expects(values, rows, plain, tmp_path, task_folder):
    """Half of the expected answers are what the model says when it is asked alone."""
    import torch

    model, tokenizer = plain
    folder = tmp_path / "own"
    folder.mkdir()
    expected = []
    for number, row in enumerate(rows[:6]):
        given = tokenizer(f"Question: {row['question']}\nAnswer:", return_tensors="pt")
        with torch.no_grad():
            said = model.generate(**given, max_new_tokens=4, do_sample=False)[0, given["input_ids"].shape[1] :]
        text = tokenizer.decode(said, skip_special_tokens=True).split("\n")[0].strip()
        expected.append({**row, "text": text if number % 2 else f"not {text}"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in expected))
    for name in ("choice.yaml", "answer.yaml"):
        text = (task_folder / name).read_text().replace("num_fewshot: 2", "num_fewshot: 0")
        (folder / name).write_text(text)
    found = run_stage(values, tasks=["answer"], include_path=str(folder))
    stderr = statistics.stdev([0, 1] * 3) / 6**0.5
    assert found["tasks"] == {"answer": {"exact_match,stripped": {"value": 0.5, "stderr": pytest.approx(stderr)}}}


def test_a_stopped_task_keeps_what_is_finished_and_ends_as_if_nothing_had_happened(values, monkeypatch):
    """The signal comes in the middle of the second task, which is not waited for: it may take hours."""
    whole = run_stage({**values, "name": "undisturbed"}, limit=8)
    run = new_run({**values, "benchmark": {**values["benchmark"], "limit": 8}})
    context = begun(run, "benchmark")
    tell = context.progress

    def signalled(done: int, total: int, unit: str) -> None:
        tell(done, total, unit)
        if done == 1:
            context.notice.request("SIGTERM")

    monkeypatch.setattr(context, "progress", signalled)
    with pytest.raises(Stopped, match="stopped by SIGTERM after 1 of 2 tasks"):
        benchmark(context)
    assert not results_file(run, "base").exists() and not task_file(run, "base", "answer").exists()
    first = task_file(run, "base", "choice").stat().st_mtime_ns
    benchmark(begun(run, "benchmark"))
    assert task_file(run, "base", "choice").stat().st_mtime_ns == first
    assert measured(run) == whole
    assert whole["num_fewshot"] == {"choice": 0, "answer": 2} and whole["num_rows"] == {"choice": 8, "answer": 8}


def test_a_model_is_stopped_between_batches(tiny_model, values):
    from hpcsft.benchmark.harness import CheckpointModel, load_tasks, measure, settings_of
    from hpcsft.models.load import load_model
    from hpcsft.models.tokenizer import load_tokenizer
    from hpcsft.spec import parse_spec

    section = parse_spec(values).benchmark
    calls = []

    def between_batches() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Stopped("enough")

    model, tokenizer = load_model(str(tiny_model), "float32"), load_tokenizer(str(tiny_model))
    loaded = load_tasks(section, ["choice", "answer"])
    for name in ("choice", "answer"):
        calls.clear()
        examined = CheckpointModel(model, tokenizer, section.batch_size, between_batches)
        with pytest.raises(Stopped, match="enough"):
            measure(examined, loaded[name], section, settings_of(section, 7))


def test_only_figures_of_the_same_settings_are_put_together(values):
    """Another release of the harness may count otherwise; and a damaged file is no figure."""
    run = new_run({**values, "benchmark": {**values["benchmark"], "limit": 2, "tasks": ["choice", "all"]}})
    benchmark(begun(run, "benchmark"))
    whole = measured(run)
    assert sorted(whole["tasks"]) == ["all", "answer", "choice"] and whole["tasks"]["all"] == {}
    file = task_file(run, "base", "choice")
    old = read_json(file)
    old["settings"]["lm_eval_version"] = "0.1"
    old["num_rows"] = {"choice": 12345}
    write_json(file, old)
    task_file(run, "base", "all").write_text("{")
    benchmark(begun(run, "benchmark"))
    assert measured(run) == whole
    assert read_results(file).settings.lm_eval_version == whole["settings"]["lm_eval_version"]


def test_a_corrected_task_is_measured_again_and_only_that(values, task_folder, tmp_path):
    """Its rows had a mistake, which was found when figures were there."""
    folder = tmp_path / "own"
    folder.mkdir()
    rows = [json.loads(line) for line in (task_folder / "rows.jsonl").read_text().splitlines()]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:4]))
    (folder / "few.jsonl").write_text(json.dumps(rows[5]) + "\n")
    (folder / "choice.yaml").write_text((task_folder / "choice.yaml").read_text())
    (folder / "few.yaml").write_text(
        "include: choice.yaml\ntask: few\ndataset_kwargs: {data_files: {test: few.jsonl}}\n"
    )
    section = {"tasks": ["choice", "few"], "include_path": str(folder)}
    run = new_run({**values, "benchmark": {**values["benchmark"], **section}})
    benchmark(begun(run, "benchmark"))
    before, kept = measured(run), task_file(run, "base", "few").stat().st_mtime_ns
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:7]))
    benchmark(begun(run, "benchmark"))
    assert measured(run)["num_rows"] == {"choice": 7, "few": 1}
    assert task_file(run, "base", "few").stat().st_mtime_ns == kept
    assert [name for name in before["sources"] if before["sources"][name] != measured(run)["sources"][name]] == [
        "choice"
    ]


def test_standard_errors_by_bootstrap_start_no_processes(values, task_folder, tmp_path, monkeypatch):
    """A pool would take every core of the node, and hand this task's signals on."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "rows.jsonl").write_text((task_folder / "rows.jsonl").read_text())
    task = (task_folder / "choice.yaml").read_text().partition("output_type")[0]
    task += "output_type: loglikelihood\ndoc_to_text: '{{question}}'\ndoc_to_target: ' {{text}}'\nmetric_list:\n"
    task += "  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}\n"
    (folder / "choice.yaml").write_text(task)
    monkeypatch.setattr("multiprocessing.Pool", None)
    found = run_stage(values, tasks=["choice"], include_path=str(folder), limit=3)
    figure = found["tasks"]["choice"]["perplexity,none"]
    assert figure["value"] > 1 and figure["stderr"] > 0
    assert found["higher_is_better"] == {"choice": {"perplexity": False}}


PROGRAM = """
from lm_eval.api.task import ConfigurableTask


class Program(ConfigurableTask):
    UNSAFE_CODE = True

    def __init__(self, config=None):
        self._config = type("Config", (), {"task": "own"})
"""
"""A task in Python. What such a one is, its YAML does not tell."""


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("dataset_path: nobody/nothing\ntest_split: test", "own: its rows are not on this machine: .*nobody/nothing"),
        ("output_type: guess\ndataset_path: json", r"own cannot be loaded: ValueError: .*guess"),
        ("class: !function code.Program", "own runs what the model writes, which hpcsft never does"),
    ],
)
def test_a_task_that_cannot_be_loaded_is_named(task, message, values, tmp_path):
    """What only the harness finds out."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own.yaml").write_text(f"task: own\n{task}\n")
    (folder / "code.py").write_text(PROGRAM)
    values["cluster"]["setup"] = ["export HF_HOME=/elsewhere"]
    with pytest.raises(InputError, match=message):
        run_stage(values, tasks=["own"], include_path=str(folder))


def test_what_submit_would_refuse_is_refused_by_the_stage_too(values):
    """The task files may have changed since, and a stage may be run by hand."""
    with pytest.raises(InputError, match=r"benchmark\.tasks: no task 'chioce'"):
        run_stage(values, tasks=["chioce"])


def test_an_epoch_that_was_not_trained_is_told(values):
    with pytest.raises(InputError, match="epoch-1 is missing") as caught:
        run_stage(values, checkpoints=["epoch-1"])
    assert "run the stage 'train' first" in caught.value.hint
