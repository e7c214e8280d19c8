"""Who may import whom, and how light the login node stays.

Guards the layers: data flows one way, and what a login node runs loads no torch, transformers, deepspeed,
datasets or numpy. A wrong import fails with the file, the line and the row of RULES that forbids it. A new module falls
under the row of its package; a new package needs a row of its own.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.launch.command import ROOT, TIMEOUT_S, environment, slurm_path
from tests.runs import finished_run

HEAVY = {
    "accelerate",
    "anthropic",
    "datasets",
    "deepspeed",
    "huggingface_hub",
    "jinja2",
    "lm_eval",
    "matplotlib",
    "numpy",
    "openai",
    "pandas",
    "peft",
    "pyarrow",
    "safetensors",
    "scipy",
    "tensorboard",
    "tokenizers",
    "torch",
    "transformers",
    "wandb",
}
"""What no command on a login node may load."""


class Rule(NamedTuple):
    """What a module may import; each field lists names, separated by spaces, which include what is below them."""

    own: str = ""
    """Modules of hpcsft."""
    outside: str = ""
    """Packages of others."""
    later: str = ""
    """Both kinds, but only inside functions."""


LOW = "errors records secrets spec rundir plan"

RULES = {
    "hpcsft": Rule(),
    "hpcsft.errors": Rule("secrets"),
    "hpcsft.secrets": Rule(),
    "hpcsft.key_file": Rule("secrets shell"),
    "hpcsft.records": Rule("errors", "pydantic"),
    "hpcsft.spec": Rule("errors secrets hub.names spec", "pydantic pydantic_core"),
    "hpcsft.rundir": Rule("errors records spec"),
    "hpcsft.plan": Rule("errors records spec rundir", "pydantic"),
    "hpcsft.hub": Rule("errors records rundir spec hub", later="huggingface_hub"),
    "hpcsft.hub.names": Rule("errors"),  # this and the next two are pure
    "hpcsft.hub.caches": Rule(),
    "hpcsft.hub.files": Rule(),
    "hpcsft.model_shape": Rule("records"),  # this and the next two are pure
    "hpcsft.flops": Rule("model_shape"),
    "hpcsft.lora": Rule("errors spec model_shape"),
    "hpcsft.model_folder": Rule("errors records model_shape model_folder"),
    "hpcsft.gpus": Rule(),
    "hpcsft.notify": Rule(f"{LOW} notify", "pydantic"),
    "hpcsft.notify.event": Rule("records spec"),  # this and the next are pure
    "hpcsft.notify.message": Rule("spec notify.event"),
    "hpcsft.notify.command": Rule(),
    "hpcsft.notify.webhook": Rule(),
    "hpcsft.notify.lacks": Rule("spec"),
    "hpcsft.estimate": Rule(f"{LOW} hub model_shape flops gpus lora inputs estimate train.deepspeed_config"),
    "hpcsft.estimate.text": Rule("estimate.memory", "rich"),
    "hpcsft.inputs": Rule(
        f"{LOW} lora model_shape model_folder benchmark.check data.files data.first_rows data.formats hub.names "
        "notify.lacks evaluate.judges evaluate.other_outputs evaluate.prompts report.leaderboard train.trackers"
    ),
    "hpcsft.shell": Rule(),
    "hpcsft.digest": Rule(),
    "hpcsft.storage": Rule("errors"),
    "hpcsft.submitted": Rule("errors records rundir"),
    "hpcsft.site": Rule("errors records slurm_client site"),
    "hpcsft.site.records": Rule("records"),
    "hpcsft.site.describe": Rule("slurm_client site", "rich"),
    "hpcsft.preflight": Rule(
        f"{LOW} model_shape gpus lora shell slurm_client site storage hub estimate inputs disk_use attempt cluster "
        "preflight runs_dirs",
        "packaging",
    ),
    "hpcsft.preflight.finding": Rule("records"),
    "hpcsft.preflight.resources.notice": Rule("plan preflight site"),  # this and the next are pure
    "hpcsft.preflight.summary": Rule("preflight.finding"),
    "hpcsft.attempt": Rule(f"{LOW} attempt slurm_client notify"),
    "hpcsft.attempt.causes": Rule("errors"),  # pure
    "hpcsft.attempt.watchdog": Rule(),  # a script of its own
    "hpcsft.cluster": Rule(
        f"{LOW} hub attempt shell slurm_client owner provenance notify cluster runs_dirs storage submitted",
        later="submitit",
    ),
    "hpcsft.slurm_client": Rule("errors"),
    "hpcsft.slurm_queue": Rule("slurm_client"),
    "hpcsft.owner": Rule("errors records rundir slurm_client"),
    "hpcsft.provenance": Rule(f"{LOW} digest hub data.files model_folder owner provenance"),
    "hpcsft.provenance.attempt": Rule("errors records rundir attempt.identity slurm_client provenance.software"),
    "hpcsft.provenance.code": Rule(),
    "hpcsft.provenance.software": Rule(),
    "hpcsft.provenance.changes": Rule("records provenance.inputs"),  # pure
    "hpcsft.provenance.ended": Rule("errors records rundir slurm_client provenance.attempt"),
    "hpcsft.provenance.reproduce": Rule(
        f"{LOW} digest hub inputs log_tail notify.lacks owner shell submitted provenance"
    ),
    "hpcsft.cluster.smoke": Rule(f"{LOW} slurm_client cluster inputs evaluate.prompts"),
    "hpcsft.cluster.held": Rule(f"{LOW} owner slurm_client slurm_queue cluster"),
    "hpcsft.log_tail": Rule(),
    "hpcsft.runs_dirs": Rule("rundir"),
    "hpcsft.find_run": Rule("errors records rundir runs_dirs slurm_client"),
    "hpcsft.logs": Rule(f"{LOW} cluster.local log_tail owner logs monitor.reading.snapshot"),
    "hpcsft.cluster.resume": Rule(
        f"{LOW} hub.fetch attempt slurm_client owner cluster estimate storage submitted train.deepspeed_config"
    ),
    "hpcsft.cluster.mounts": Rule(f"{LOW} hub model_folder"),
    "hpcsft.cluster.task": Rule(later="attempt errors rundir submitit"),  # unpickled by any version: light
    "hpcsft.cluster.dry_run": Rule(
        f"{LOW} cluster estimate inputs evaluate.judges.cost evaluate.prompts train.deepspeed_config"
    ),
    "hpcsft.monitor": Rule(
        "errors records rundir owner usage monitor", "rich", later="report.document report.terminal"
    ),
    "hpcsft.monitor.reading": Rule(
        f"{LOW} owner slurm_queue attempt cluster.local log_tail monitor.reading monitor.state.facts "
        "monitor.state.task monitor.failure.naming"
    ),
    "hpcsft.monitor.screen": Rule(
        f"{LOW} cluster.submit log_tail notify.announce monitor.look monitor.screen monitor.state monitor.view", "rich"
    ),
    "hpcsft.monitor.state": Rule(  # this, the failures and the view are pure
        "errors records plan slurm_client slurm_queue attempt.causes usage.record monitor.state monitor.failure"
    ),
    "hpcsft.monitor.state.facts": Rule("records plan slurm_queue"),
    "hpcsft.monitor.failure": Rule("records attempt.causes attempt.journal attempt.outcome monitor.failure"),
    "hpcsft.monitor.view": Rule("records attempt.causes usage.record usage.text monitor.state monitor.view", "rich"),
    "hpcsft.usage": Rule("records rundir plan attempt usage"),
    "hpcsft.usage.record": Rule("records"),  # this and the next five are pure
    "hpcsft.usage.attempts": Rule("records attempt"),
    "hpcsft.usage.training": Rule("attempt usage"),
    "hpcsft.usage.account": Rule("plan usage"),
    "hpcsft.usage.advice": Rule("plan usage.record"),
    "hpcsft.usage.text": Rule("usage.record"),
    "hpcsft.console": Rule("errors cluster.snapshot", later="completion spec"),
    "hpcsft.completion": Rule("errors", "argcomplete", later="find_run rundir runs_dirs"),
    "hpcsft.question": Rule(),
    "hpcsft.disk_use": Rule("records rundir", "pydantic"),
    "hpcsft.clean": Rule("disk_use errors records rundir monitor.look train.commit"),
    "hpcsft.runs_list": Rule("disk_use errors records rundir runs_dirs monitor", "rich"),
    "hpcsft.quickstart": Rule("digest errors quickstart", later="models spec tokenizers yaml"),
    "hpcsft.stage": Rule(f"{LOW} hub attempt provenance.attempt stage submitted"),
    "hpcsft.data": Rule(f"{LOW} stage provenance.hashing data models.tokenizer", "numpy pyarrow tokenizers"),
    "hpcsft.data.formats": Rule(),  # light, as are those below that name what they may load
    "hpcsft.data.streams": Rule("errors", later="pyarrow"),
    "hpcsft.data.json_lines": Rule("data.formats data.streams"),
    "hpcsft.data.json_arrays": Rule("errors data.formats data.json_lines data.streams"),
    "hpcsft.data.hub": Rule("errors hub.names", later="datasets"),
    "hpcsft.data.hub_download": Rule("errors hub data.first_rows data.hub", later="datasets huggingface_hub"),
    "hpcsft.data.first_rows": Rule("errors data.formats data.readers"),
    "hpcsft.data.files": Rule("errors hub.names data.hub data.streams"),
    "hpcsft.data.tables": Rule("errors data.formats data.streams", later="datasets pyarrow"),
    "hpcsft.data.readers": Rule(
        "errors hub.names data.files data.formats data.hub data.json_arrays data.json_lines data.streams data.tables"
    ),
    "hpcsft.data.pieces": Rule("data.formats"),
    "hpcsft.data.special_tokens": Rule(),
    "hpcsft.data.templates": Rule("errors data.formats data.pieces data.special_tokens", later="data.jinja_template"),
    "hpcsft.data.jinja_layout": Rule("data.formats data.pieces data.special_tokens"),
    "hpcsft.data.jinja_template": Rule(
        "errors data.formats data.pieces data.jinja_layout data.special_tokens", "jinja2 transformers"
    ),
    "hpcsft.data.rows": Rule("spec data.formats data.pieces"),
    "hpcsft.data.hashing": Rule("", "numpy"),
    "hpcsft.data.packing": Rule("", "numpy"),
    "hpcsft.data.order": Rule("data.hashing data.packing", "numpy"),
    "hpcsft.data.shards": Rule("errors records data.quarantine", "numpy pyarrow"),
    "hpcsft.data.splits": Rule("data.hashing data.shards", "numpy pyarrow"),
    "hpcsft.data.batches": Rule("data.shards data.splits", "numpy pyarrow torch"),
    "hpcsft.data.audit": Rule(f"{LOW} data", "numpy", later="data.batches"),
    "hpcsft.data.amount": Rule(f"{LOW} estimate.work data", "numpy"),
    "hpcsft.data.figures": Rule("spec data.hashing data.packing", "numpy"),
    "hpcsft.data.readable": Rule("data.shards"),
    "hpcsft.data.preview_text": Rule("data.readable", "rich"),
    "hpcsft.models": Rule(f"{LOW} data.batches models", "safetensors torch transformers"),
    "hpcsft.models.load": Rule(f"{LOW} model_folder models", "huggingface_hub safetensors torch transformers"),
    "hpcsft.models.baichuan": Rule("models.heads models.baichuan", "torch transformers"),
    "hpcsft.models.baichuan.configuration": Rule("model_shape", "transformers"),
    "hpcsft.models.export": Rule(f"{LOW} models", "accelerate torch transformers", later="deepspeed"),
    "hpcsft.models.hollow": Rule("", "accelerate torch transformers"),
    "hpcsft.models.llamafy": Rule("errors model_shape models.heads", "torch transformers"),
    "hpcsft.models.lora": Rule("errors spec lora model_folder", "safetensors torch transformers", later="peft"),
    "hpcsft.models.weight_files": Rule("errors model_folder", "transformers"),
    "hpcsft.models.sentencepiece_file": Rule("model_folder.sentencepiece", "tokenizers"),
    "hpcsft.models.gguf_tokenizer": Rule("errors model_folder models", "tokenizers"),
    "hpcsft.models.tokenizer": Rule("errors model_folder.sentencepiece models", "tokenizers", later="transformers"),
    "hpcsft.models.tokenizer_settings": Rule("errors model_folder.reading", "tokenizers", later="transformers"),
    "hpcsft.models.tokenizer_export": Rule("models.tokenizer_settings"),
    "hpcsft.models.cross_entropy": Rule("", "torch", later="cut_cross_entropy liger_kernel"),
    "hpcsft.models.attention": Rule("", "torch transformers"),
    "hpcsft.train": Rule(
        f"{LOW} attempt slurm_client stage flops gpus lora model_shape data models train",
        "deepspeed numpy torch transformers",
    ),
    "hpcsft.train.base_model": Rule("errors model_folder", "torch"),
    "hpcsft.train.deepspeed_config": Rule("spec"),  # pure: the dry run shows it
    "hpcsft.train.metrics": Rule("records rundir train.trackers"),
    "hpcsft.train.trackers": Rule("errors rundir attempt.heartbeat"),
    "hpcsft.train.tracker_process": Rule("rundir train.tracker_kinds train.trackers"),
    "hpcsft.train.tracker_kinds": Rule("records rundir train.trackers", later="tensorboard wandb"),
    "hpcsft.train.commit": Rule("records rundir attempt.fence", "pydantic"),
    "hpcsft.evaluate": Rule(f"{LOW} stage data models evaluate", "torch transformers"),
    "hpcsft.evaluate.prompts": Rule("errors records data.formats"),  # this and those below are light but where told
    "hpcsft.evaluate.verdicts": Rule("errors records evaluate.prompts"),
    "hpcsft.evaluate.outputs": Rule(f"{LOW} evaluate.prompts"),
    "hpcsft.evaluate.other_outputs": Rule("errors data.formats evaluate.outputs evaluate.prompts"),
    "hpcsft.evaluate.checks": Rule("errors records spec evaluate.outputs"),
    "hpcsft.evaluate.generation": Rule(f"{LOW} data models evaluate", "torch transformers"),  # not light
    "hpcsft.evaluate.generation.placement": Rule("errors", "accelerate torch transformers"),  # nor this
    "hpcsft.evaluate.generation.conditions": Rule("records rundir"),
    "hpcsft.evaluate.scores": Rule("errors records evaluate.prompts evaluate.verdicts evaluate.scores"),
    "hpcsft.evaluate.scores.text": Rule("evaluate.scores", "rich"),
    "hpcsft.evaluate.judges": Rule(
        "errors records secrets key_file shell spec evaluate.prompts evaluate.verdicts evaluate.judges",
        later="anthropic openai yaml",
    ),
    "hpcsft.evaluate.judges.local_judge": Rule(  # not light
        "errors spec data models evaluate.judges evaluate.verdicts", "torch"
    ),
    "hpcsft.benchmark": Rule(
        f"{LOW} digest stage data.chat_template data.trained_template models evaluate.outputs benchmark"
    ),
    "hpcsft.benchmark.task_files": Rule("errors", later="yaml"),
    "hpcsft.benchmark.check": Rule("errors spec hub.caches benchmark.task_files"),
    "hpcsft.benchmark.results": Rule("records rundir"),
    "hpcsft.benchmark.harness": Rule(
        "errors spec benchmark.check benchmark.results", "lm_eval numpy torch transformers"
    ),
    "hpcsft.report": Rule(
        f"{LOW} stage provenance.ended report data.readable data.shards evaluate.checks "
        "evaluate.generation.conditions evaluate.judges evaluate.scores"
    ),
    "hpcsft.report.document": Rule("records evaluate.checks evaluate.generation.conditions evaluate.scores"),
    "hpcsft.report.leaderboard": Rule("errors report.document"),
    "hpcsft.report.terminal": Rule("evaluate.scores report.document report.sentences report.tables", "rich"),
    "jobs": Rule(
        "stage rundir attempt.ending attempt.identity",
        later="data models train evaluate benchmark report cluster.held",
    ),
    "launch": Rule(
        f"{LOW} hub.fetch estimate inputs cluster monitor find_run runs_dirs",
        later="rich cluster monitor logs clean disk_use question runs_list",
    ),
    "launch.submit": Rule("errors spec", later="cluster monitor preflight"),
    "launch.resume": Rule("errors spec find_run", later="cluster monitor preflight"),
    "launch.doctor": Rule("errors spec", later="rich cluster preflight site"),
    "launch.reproduce": Rule("errors find_run", later="cluster.snapshot provenance"),
    "launch.score": Rule("errors evaluate.scores", later="rich"),
    "launch.plan": Rule(f"{LOW} hub.fetch estimate inputs gpus", later="rich data.amount models.tokenizer"),
    "launch.preview": Rule(f"{LOW} inputs cluster", later="rich hub.fetch data models.tokenizer"),
}
"""Row of a module: the longest prefix of its name."""

ON_LOGIN_NODE = (
    f"{LOW} model_shape flops gpus lora model_folder shell digest storage submitted site preflight owner "
    "provenance slurm_client slurm_queue attempt estimate inputs cluster monitor "
    "console find_run runs_dirs runs_list logs log_tail clean disk_use question completion notify usage "
    "evaluate.scores report.document report.tables report.sentences report.terminal"
)
LOGIN_NODE = "launch " + " ".join(f"hpcsft.{name}" for name in ON_LOGIN_NODE.split())
"""What runs on a login node."""


class Import(NamedTuple):
    """One import statement's target."""

    name: str
    line: int
    at_start: bool
    """At module level, so that loading the module runs it."""


def module_files() -> dict[str, Path]:
    """Every source file by the dotted name of its module."""
    files = {}
    for folder in ("hpcsft", "jobs", "launch"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


FILES = module_files()


def shown(name: str) -> str:
    """The module's file as it is called in messages."""
    return str(FILES[name].relative_to(ROOT))


def imports_of(name: str) -> Iterator[Import]:
    """Every import in the module, wherever it stands."""
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]

    def visit(node: ast.AST, at_start: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, at_start) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    parents = package.split(".")
                    base = ".".join([*parents[: len(parents) - child.level + 1], *filter(None, [base])])
                for alias in child.names:
                    deeper = f"{base}.{alias.name}"
                    yield Import(deeper if deeper in FILES else base, child.lineno, at_start)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                yield from visit(child, False)
            else:
                function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                yield from visit(child, at_start and not function)

    return visit(ast.parse(FILES[name].read_text(encoding="utf-8")), True)


def covers(names: str, target: str) -> bool:
    return any(target == name or target.startswith(f"{name}.") for name in names.split())


def row_of(name: str) -> str | None:
    rows = [row for row in RULES if name == row or (name.startswith(f"{row}.") and row != "hpcsft")]
    return max(rows, key=len, default=None)


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_only_what_its_row_allows(name):
    row = row_of(name)
    assert row, f"{shown(name)}: give it a row in RULES, in {Path(__file__).name}"
    own, outside, later = RULES[row]
    wrong = []
    for target, line, at_start in imports_of(name):
        if target.partition(".")[0] in sys.stdlib_module_names:
            continue
        short = target.removeprefix("hpcsft.") if target.startswith("hpcsft") else target
        allowed = own if target.startswith("hpcsft") else outside
        if not covers(allowed, short) and (at_start or not covers(later, short)):
            when = "at module level" if at_start else "in a function"
            wrong.append(f"{shown(name)}:{line}: imports {target} {when}, which RULES['{row}'] does not allow")
    assert not wrong, "\n".join(wrong)


def test_every_row_is_of_a_module_that_exists():
    gone = [row for row in RULES if row not in FILES and row not in ("jobs", "launch")]
    assert not gone, f"rows without a module: {gone}"


def test_no_two_modules_import_each_other_in_a_circle():
    """Not even with an import inside a function, which would only hide that data flows back."""
    graph = {name: {target for target, _, _ in imports_of(name) if target in FILES} for name in FILES}
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, "a circle of imports: " + " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name]):
                walk(target, (*way, name))
            done.add(name)

    for name in graph:
        walk(name, ())


@pytest.mark.parametrize("name", [name for name in FILES if covers(LOGIN_NODE, name)])
def test_loading_a_login_node_module_reaches_nothing_heavy(name):
    """Through all that is imported on the way, packages' __init__.py included."""
    seen: set[str] = set()
    queue: list[tuple[str, tuple[str, ...]]] = [(name, ())]
    while queue:
        module, way = queue.pop()
        for target, line, at_start in imports_of(module):
            step = (*way, f"{shown(module)}:{line}")
            package = target.partition(".")[0]
            assert not (at_start and package in HEAVY), f"{' -> '.join(step)} imports {target}"
            parts = target.split(".")
            for part in (".".join(parts[: end + 1]) for end in range(len(parts))):
                if at_start and part in FILES and part not in seen:
                    seen.add(part)
                    queue.append((part, step))


@pytest.mark.parametrize("path", sorted((ROOT / "launch").glob("*.py")), ids=lambda path: path.name)
def test_launch_scripts_are_short(path):
    """They parse arguments; what they do belongs to hpcsft/, where it can be tested."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines < 80, f"launch/{path.name} has {lines} lines; under 80 is the rule"


LOOK = """
import json, runpy, sys
heavy, script, *arguments = sys.argv[1:]
sys.argv = [script, *arguments]
code = 0
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as leave:
    code = leave.code
loaded = {name.partition(".")[0] for name in sys.modules} & set(heavy.split())
print(json.dumps({"code": code, "loaded": sorted(loaded)}), file=sys.stderr)
"""


def loaded_by(script: str, *arguments: str, cwd: Path) -> dict[str, Any]:
    """Run launch/SCRIPT for real and tell its exit code and which heavy packages it had loaded at its end."""
    command = [sys.executable, "-c", LOOK, " ".join(HEAVY), str(ROOT / "launch" / script), *arguments]
    path = slurm_path(cwd / "bin")
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=TIMEOUT_S, env=environment(path))
    return json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "launch").glob("*.py")))
def test_help_is_light(script, tmp_path):
    assert loaded_by(script, "--help", cwd=tmp_path) == {"code": 0, "loaded": []}


@pytest.mark.parametrize("kind", ["local", "slurm"])
def test_submit_is_light_when_it_checks_plans_and_renders(kind, spec_values, tmp_path):
    """The whole way of a submission but for sbatch itself, the text of Slurm's scripts included."""
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec_values))
    assert loaded_by("submit.py", str(path), "--dry-run", "--cluster", kind, cwd=tmp_path) == {"code": 0, "loaded": []}


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("monitor.py", ["--once", "--json"]),
        ("monitor.py", ["--once"]),
        ("monitor.py", ["--display", "plain"]),
        ("logs.py", []),
        ("cancel.py", ["--yes"]),
        ("resume.py", []),
        ("runs.py", []),
        ("clean.py", ["--yes"]),
    ],
)
def test_commands_on_a_run_are_light(script, arguments, spec_values, tmp_path):
    run = finished_run(spec_values)
    folder = run.log_folder("report", "local-1", 0)
    folder.mkdir(parents=True)
    (folder / "0.out").write_text("")
    (folder / "0.err").write_text("")
    assert loaded_by(script, str(run.path), *arguments, cwd=tmp_path) == {"code": 0, "loaded": []}
