"""A spec that a colleague has sent runs nothing: no string of it is ever more than a text to a shell or to sbatch."""

from __future__ import annotations

import ast
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from hpcsft.cluster.slurm import render_script
from hpcsft.errors import SubmissionError
from hpcsft.plan import make_plan
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec
from tests.cluster import doors
from tests.cluster.minislurm import MiniSlurm
from tests.launch.command import ROOT
from tests.spec.values import minimal

EXAMPLES = 150
SEED = 9
BY_SBATCH = 40
"""So many of the rendered scripts are shown to sbatch."""

SOURCES = sorted(path for folder in ("hpcsft", "jobs", "launch") for path in (ROOT / folder).rglob("*.py"))
STARTS_A_SHELL = ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "eval", "exec")
MAY_SPLIT = "completion.py"
"""Takes the words of a command line apart, and makes none."""


@pytest.fixture
def bash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> doors.Bash:
    """A bash in a folder of its own, and hpcsft in a Python at a path that is full of shell."""
    monkeypatch.chdir(tmp_path)
    bash = doors.Bash(tmp_path)
    doors.python_in_a_bad_place(bash, monkeypatch)
    return bash


def scripts_of(bash: doors.Bash, folder: Path, tally: doors.Tally) -> list[doors.Script]:
    drawn = doors.draw(doors.specs(bash.canary, folder / "runs"), EXAMPLES, SEED)
    return [script for values in drawn for script in doors.render(values, tally, str(bash.python))]


def test_generated_specs_run_no_command_and_every_refusal_names_its_field(bash, tmp_path):
    tally = doors.Tally()
    scripts = scripts_of(bash, tmp_path, tally)
    assert tally.nameless == []
    assert tally.rendered > EXAMPLES // 8 and tally.refused > EXAMPLES // 8, tally
    assert bash.run(scripts) == []


@pytest.mark.slurm
def test_the_real_sbatch_reads_what_generated_specs_become(slurm: MiniSlurm, bash, tmp_path):
    scripts = scripts_of(bash, tmp_path, doors.Tally())
    chosen = random.Random(SEED).sample(scripts, min(BY_SBATCH, len(scripts)))
    assert [said for script in chosen if (said := doors.unreadable(script.text))] == []
    assert not bash.canary.exists()


def test_a_payload_that_runs_is_found_out(bash, tmp_path):
    """The check itself: `setup` is shell, and other arguments are seen."""
    values = minimal(runs_dir=str(tmp_path / "runs"), cluster={"kind": "slurm", "setup": [f"touch {bash.canary}"]})
    (script, *_) = doors.render(values, doors.Tally(), str(bash.python))
    assert bash.run([script]) == [script.text]
    values["cluster"]["setup"] = []
    (script, *_) = doors.render(values, doors.Tally(), str(bash.python))
    assert bash.run([script, script]) == []
    script.calls[0][-1] = "elsewhere"
    assert len(bash.run([script])) == 1


def test_every_field_is_among_those_that_are_tried():
    assert {"name", "runs_dir", "cluster.env", "cluster.sbatch", "cluster.train.constraint"} <= set(doors.FIELDS)
    assert doors.SETUP not in doors.FIELDS and len(doors.FIELDS) > 100


@pytest.mark.parametrize("name", ["a b", "a'b", "a\nb", "100%j", "a$(x)"])
def test_a_run_that_was_moved_to_a_strange_path_is_not_submitted(name, tmp_path):
    """Its path would stand in #SBATCH lines, which quote nothing."""
    spec = parse_spec(minimal(runs_dir=str(tmp_path), cluster={"kind": "slurm"}))
    with pytest.raises(SubmissionError, match="cannot be the path of a run: letters, digits and") as caught:
        render_script(spec, RunDir(tmp_path / name), make_plan(spec).stages[0], [])
    assert "submit its spec anew with another runs_dir" in caught.value.hint


def shell_makers(path: Path) -> list[str]:
    """Where a module quotes for a shell by itself, or starts one."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
            found += [(node.lineno, name) for name in names & {"shlex", "pipes", "pty"} if path.name != MAY_SPLIT]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            program = called.rpartition(".")[2] in ("run", "Popen", "call", "check_call", "check_output")
            found += [(node.lineno, "shell=") for word in node.keywords if word.arg == "shell" and program]
            found += [(node.lineno, called)] if called in STARTS_A_SHELL or called == "shlex.quote" else []
    return [f"{path.relative_to(ROOT)}:{line}: {what}" for line, what in found]


def test_one_module_quotes_for_shells_and_none_starts_one():
    """`hpcsft/shell.py` is where to look when the one or the other is wrong."""
    found = [line for path in SOURCES for line in shell_makers(path)]
    assert {line.partition(":")[0] for line in found} == {"hpcsft/shell.py"}, found


@pytest.mark.parametrize("name", ["with space", "it's", '"quoted"', "100%", "new\nline", "$(touch x)", "-dash"])
def test_a_checkout_at_a_strange_path_works(name, tmp_path):
    """Its own path is in no batch script: the code that runs is the copy in the run directory."""
    checkout = tmp_path / name
    checkout.mkdir()
    for folder in ("hpcsft", "jobs", "launch"):
        os.symlink(ROOT / folder, checkout / folder)
    (tmp_path / "spec.json").write_text('{"model": {"path": "m"}, "data": {"train": ["d"]}}')
    command = [sys.executable, str(checkout / "launch" / "submit.py"), "spec.json", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: model.path: "), done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "x").exists()
