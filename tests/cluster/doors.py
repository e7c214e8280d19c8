"""Generated specs full of shell, on the way through the real rendering, a real bash and the real sbatch.

A spec that is not refused is rendered for every stage. `Bash` runs such scripts with stand-ins for srun and Python that
write down what they are called with, and never anything else; `sbatch --test-only` reads them too.
"""

from __future__ import annotations

import copy
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from hpcsft.cluster.environment import ranks_command
from hpcsft.cluster.mounts import container_mounts
from hpcsft.cluster.slurm import render_script
from hpcsft.errors import InputError, SpecError
from hpcsft.plan import StagePlan, make_plan
from hpcsft.rundir import RunDir
from hpcsft.shell import quoted
from hpcsft.spec import ExperimentSpec, parse_spec
from hpcsft.spec.load import model_of
from tests.spec.test_experiment import OTHER_VALUES
from tests.spec.values import changed, minimal

FIRED = "FIRED"
"""The file that every payload would make."""

SETUP = "cluster.setup"
"""The one field that is shell."""

SBATCH_OPTIONS = ("exclude", "gres", "mail-user", "reservation", "licenses", "begin", "nodelist", "switches", "nice")

UNREADABLE = re.compile(r"unrecognized option|invalid option|ambiguous|Unable to parse|[Ii]nvalid argument|Bad \w+ opt")
"""What sbatch says of a script that it cannot read; that a partition does not exist is no such thing."""


def payloads(canary: Path) -> list[str]:
    """Texts that would make the file `canary` if any shell, sbatch or srun took them for more than a text."""
    touch, make = f"touch {canary}", f">{canary}"
    commands = [f"$({touch})", f"`{touch}`", f"<({touch})", f"${{x:-$({touch})}}", f"$({make})", f"((x[$({touch})]))"]
    breaks = [
        "; {}",
        "| {}",
        "&& {}",
        "& {} &",
        "\n{}\n",
        "\r\n{}\r\n",
        "'; {}; '",
        '"; {}; "',
        "'\n{}\n'",
        "\\'\"\n{} #",
    ]
    endings = [
        "$(" + touch,
        "`" + touch,
        "${",
        "$((",
        "<<EOF\n",
        "\\",
        "'",
        '"',
        "''",
        "\"'",
        "#",
        "# x",
        "~",
        "*",
        "!!",
    ]
    lines = [f"\n#SBATCH --wrap='{touch}'\n", f"x\n#SBATCH --output={canary}", f"\n#SBATCH --chdir={canary}"]
    options = ["-x", "--", f"--wrap={touch}", f"--output={canary}", "-o", f"--prolog={canary}", "--uid=0", "-D/"]
    patterns = ["%j", "%A_%a", "%", "%%", "%n", "a%tb", "%99999999999s", "{run_dir}", "{", "{0.__class__}"]
    odd = ["", " ", "\t", "\x07", "\x1b[31m", "é", "你好", "\u2028", "\u202e", "\ud800", "\0", "a\0b", "x" * 5000]
    names = [
        "../..",
        "..",
        "/",
        "//",
        f"/{touch}",
        "a b",
        "a=b",
        "a,b",
        "a:b",
        "(a)",
        "[1-3]",
        "a&b",
        "a|b",
        "null",
        "1",
    ]
    texts = [*commands, *(text.format(touch) for text in breaks), *endings, *lines, *options, *patterns, *odd, *names]
    return [*texts, *(f"a{text}" for text in texts), *(f"a/{text}/b" for text in texts)]


def fields(section: type = ExperimentSpec, above: str = "") -> Iterator[tuple[str, str]]:
    """Path and shape (text, list, mapping) of every field of a spec, new ones included."""
    for name, info in section.model_fields.items():
        path = f"{above}.{name}" if above else name
        inner = model_of(info.annotation)
        if inner:
            yield from fields(inner, path)
        elif path != SETUP:
            kinds = {getattr(part, "__origin__", part) for part in (info.annotation, *_parts(info.annotation))}
            yield path, "mapping" if dict in kinds else "list" if list in kinds else "text"


def _parts(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        yield part
        yield from _parts(part)


FIELDS = dict(fields())


def specs(canary: Path, runs_dir: Path) -> st.SearchStrategy[dict[str, Any]]:
    """Specs in which up to five fields have a valid value or a payload; `runs_dir` unless it is one of them."""
    text = st.sampled_from(payloads(canary)) | st.text(max_size=40)
    few = st.lists(text, min_size=1, max_size=3)
    name = st.sampled_from(["MY_VAR", "A", "_x", "Z9"]) | text

    def value_of(path: str) -> st.SearchStrategy[Any]:
        shaped = {"text": text, "list": few | text, "mapping": st.dictionaries(name, text, min_size=1, max_size=3)}
        options = st.dictionaries(st.sampled_from(SBATCH_OPTIONS) | text, text | st.booleans() | st.integers(0, 9))
        wild = options if path == "cluster.sbatch" else shaped[FIELDS[path]]
        return st.just(OTHER_VALUES[path]) | wild if path in OTHER_VALUES else wild

    # What takes any text is drawn more often than what refuses nearly all.
    open_to_all = ["cluster.env", "cluster.env", "notify.command", "evaluate.judge.model", "model.path", "data.train"]
    path = st.sampled_from(open_to_all) | st.sampled_from(sorted(FIELDS))
    changes = st.lists(path.flatmap(lambda each: st.tuples(st.just(each), value_of(each))), min_size=1, max_size=5)

    def spec_of(chosen: list[tuple[str, Any]]) -> dict[str, Any]:
        values = minimal(runs_dir=str(runs_dir), evaluate={"prompts": "p.json"}, cluster={"kind": "slurm"})
        for each, value in chosen:
            for parent in itertools.accumulate(each.split(".")[:-1], lambda a, b: f"{a}.{b}"):
                if not isinstance(_at(values, parent), dict):
                    values = changed(values, parent, {})
            values = changed(values, each, copy.deepcopy(value))
        return values

    return changes.map(spec_of)


def _at(values: Any, path: str) -> Any:
    for part in path.split("."):
        values = values.get(part, {}) if isinstance(values, dict) else None
    return values


def draw(strategy: st.SearchStrategy[Any], examples: int, number: int) -> list[Any]:
    """`examples` of a strategy, the same for the same `number`."""
    drawn: list[Any] = []

    @seed(number)
    @settings(max_examples=examples, phases=[Phase.generate], database=None, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def keep(value: Any) -> None:
        drawn.append(value)

    keep()
    return drawn


@dataclass(frozen=True)
class Script:
    """A rendered batch script, and what it should call."""

    text: str
    calls: list[list[str]]
    """Words of every program, in order."""
    variables: dict[str, str]
    run: RunDir


@dataclass
class Tally:
    """What became of the specs."""

    specs: int = 0
    refused: int = 0
    rendered: int = 0
    nameless: list[list[str]] = field(default_factory=list)
    """Refusals that name no field."""


def render(values: dict[str, Any], tally: Tally, python: str) -> list[Script]:
    """The scripts of all stages of a spec; none if it is refused. `python` is what runs hpcsft, wherever it lies."""
    tally.specs += 1
    try:
        spec = parse_spec(values)
        plan = make_plan(spec)
        run = RunDir(spec.run_path)
        scripts = [_script(spec, run, stage, python) for stage in plan.stages]
    except SpecError as error:
        tally.refused += 1
        if not error.problems or not all(_is_field(problem.path) for problem in error.problems):
            tally.nameless.append(error.lines())
        return []
    except InputError as error:
        tally.refused += 1
        if not re.match(r"[a-z]+(_dir|\.[a-z_.]+): |", error.message)[0]:
            tally.nameless.append(error.lines())
        return []
    tally.rendered += 1
    return scripts


def _is_field(path: str) -> bool:
    """Does a problem name a field, a section, or something inside a field?"""
    plain = re.sub(r"\[\d+\]", "", path)
    return any(known == plain or known.startswith(f"{plain}.") or plain.startswith(f"{known}.") for known in FIELDS)


def _script(spec: ExperimentSpec, run: RunDir, stage: StagePlan, python: str) -> Script:
    text = render_script(spec, run, stage, ["17"])
    folder = run.submitit / stage.name
    name = "%A_%a" if stage.tasks > 1 else "%j"
    options = ["--unbuffered", "--output", f"{folder}/{name}_%t_log.out", "--error", f"{folder}/{name}_%t_log.err"]
    cpus = [f"--cpus-per-task={stage.cpus_per_task}"] if stage.cpus_per_task else []
    ranks = [python]
    if spec.cluster.container:
        ranks = shlex.split(ranks_command(spec, run, stage, container_mounts(spec, stage.name, os.environ)))
    elif spec.cluster.venv or spec.cluster.conda:
        ranks = [f"{spec.cluster.venv or spec.cluster.conda}/bin/python"]
    interface = spec.cluster.network.interface if stage.name == "train" else None
    srun = ["srun", *options, "--kill-on-bad-exit=1", *cpus, *ranks]
    calls = [
        *([["python", "-m", "hpcsft.attempt.address", interface]] if interface else []),
        [*srun, "-u", "-m", "submitit.core._submit", str(folder)],
        ["python", "-m", "hpcsft.attempt.after_srun", str(run.path), stage.name, "0"],
    ]
    return Script(text, calls, spec.cluster.env, run)


class Bash:
    """Runs batch scripts in a real bash, many in one process, with stand-ins for the programs that they start."""

    def __init__(self, folder: Path):
        self.canary = folder / FIRED
        self.python = folder / 'it\'s a "bad" $(place)\nfor %j' / "python"
        self._folder = folder
        self._tools = folder / "tools"
        self._log = folder / "log"
        self._tools.mkdir()
        self.python.parent.mkdir()
        # Arguments and the environment, each ended by NUL, and a form feed behind all.
        record = f'{{ printf "%s\\0" {{}} "$@"; printf "\\f\\0"; env -0; printf "\\f\\0"; }} >> {quoted(self._log)}\n'
        for path, name in ((self._tools / "srun", "srun"), (self.python, "python")):
            path.write_text("#!/bin/sh\n" + record.replace("{}", name, 1))
            path.chmod(0o755)
        loaded = 'module() { [ "$1" != load ] || LOADEDMODULES="$LOADEDMODULES:$2"; }'
        (folder / "modules").write_text(loaded)
        for name in ("apptainer", "singularity"):
            (self._tools / name).symlink_to("/bin/true")

    def run(self, scripts: Sequence[Script]) -> list[str]:
        """Run `scripts` one after the other; returns what was wrong: a payload that ran, or other arguments."""
        lines = [f"export PATH={quoted(self._tools)}:/usr/bin:/bin HOME={quoted(self._folder)}", "LOADEDMODULES="]
        for number, script in enumerate(scripts):
            (script.run.submitit).mkdir(parents=True, exist_ok=True)
            script.run.code.mkdir(exist_ok=True)
            path = self._folder / f"{number}.sh"
            path.write_text(script.text)
            job = f"SLURM_JOB_ID={number} SLURM_RESTART_COUNT=0"
            lines.append(f"(. {quoted(self._folder / 'modules')}; {job}; . {quoted(path)}) < /dev/null")
            lines.append(f'printf "end\\0\\f\\0\\f\\0" >> {quoted(self._log)}')
        self._log.write_bytes(b"")
        environment = {"LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)], capture_output=True, cwd=self._folder, env=environment, timeout=300
        )
        wrong = [] if done.returncode == 0 or scripts else [done.stderr.decode(errors="replace")]
        if self.canary.exists():
            self.canary.unlink()
            one = len(scripts) == 1
            wrong += [scripts[0].text] if one else [text for script in scripts for text in self.run([script])]
            return wrong
        return wrong + self._compare(scripts)

    def _compare(self, scripts: Sequence[Script]) -> list[str]:
        calls = self._calls()
        wrong = []
        for script in scripts:
            made = list(itertools.takewhile(lambda call: call[0][0] != "end", calls))
            words = [words for words, _ in made]
            if len(words) == 1 and words[0][:3] == ["python", "-m", "hpcsft.attempt.environment_failed"]:
                continue  # what the spec names is not here, and the job says so
            seen = next((environment for words, environment in made if words[0] == "srun"), {})
            if words != script.calls:
                wrong.append(f"{script.text}\n-> {words}")
            elif others := {name: value for name, value in script.variables.items() if seen.get(name) != value}:
                wrong.append(f"{script.text}\n-> {others}")
        return wrong

    def _calls(self) -> Iterator[tuple[list[str], dict[str, str]]]:
        """Words and environment of every call of a stand-in, and `end` behind each script's."""
        parts = iter(self._log.read_bytes().decode("utf-8", "surrogateescape").split("\0"))
        for first in parts:
            if first:
                words = [first, *itertools.takewhile(lambda part: part != "\f", parts)]
                pairs = (part.partition("=") for part in itertools.takewhile(lambda part: part != "\f", parts))
                yield words, {name: value for name, _, value in pairs}


def unreadable(text: str) -> str | None:
    """What the real sbatch says of a script if it cannot read it, else None. Nothing is submitted."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SBATCH_")}
    done = subprocess.run(
        ["sbatch", "--test-only"], input=text.encode(), capture_output=True, env=environment, timeout=60
    )
    said = done.stderr.decode(errors="replace")
    return said if UNREADABLE.search(said) else None


def python_in_a_bad_place(bash: Bash, monkeypatch: Any) -> str:
    """Let hpcsft run from a Python whose path is full of shell; returns that path."""
    monkeypatch.setattr(sys, "executable", str(bash.python))
    return str(bash.python)
