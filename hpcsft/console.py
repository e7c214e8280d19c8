"""The console script `hpcsft`: the commands of launch/ as verbs, and the schema of the spec."""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import sys
from typing import Any

from hpcsft.cluster.snapshot import source_root
from hpcsft.errors import EXIT_INVALID, EXIT_OK, report_errors

USAGE = """usage: hpcsft VERB ...   (hpcsft VERB --help tells more)

  doctor [SPEC]      see what this cluster is, and what stands against a spec
  preview SPEC.json  see what the first rows of the data become
  plan SPEC.json     see what it will cost: memory, GPU-hours, disk
  submit SPEC.json   turn a spec into jobs
  monitor [RUN ...]  see how runs go
  logs RUN [STAGE]   read its logs
  cancel RUN         stop it
  resume RUN         submit again what failed
  reproduce RUN      write the spec that runs it again, and tell what has changed since
  runs [FOLDER ...]  list runs, with what they take on the disk
  clean RUN ...      remove old checkpoints
  score FILE ...     score AlpacaEval annotation files
  schema [--table]   the JSON schema of a spec, or its fields as a Markdown table
  completion SHELL   what makes bash, zsh or fish complete all this

RUN is a run directory, the name of a run or its beginning, or the id of one of its jobs."""

VERBS = (
    "doctor",
    "preview",
    "plan",
    "submit",
    "monitor",
    "logs",
    "cancel",
    "resume",
    "reproduce",
    "runs",
    "clean",
    "score",
)


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    if "_ARGCOMPLETE" in os.environ and argv is None:  # the shell asks what could come next
        from hpcsft.completion import complete

        complete(USAGE, lambda verb: _script(verb).parser() if verb in VERBS else None)
    return report_errors(_run, sys.argv[1:] if argv is None else argv)


def _run(arguments: list[str]) -> int:
    if arguments[:1] in ([], ["--help"], ["-h"]):
        print(USAGE)
        return EXIT_OK if arguments else EXIT_INVALID
    verb, rest = arguments[0], arguments[1:]
    if verb == "schema":
        from hpcsft.spec import ExperimentSpec
        from hpcsft.spec.describe import fields_table

        table = rest == ["--table"]
        print(fields_table() if table else json.dumps(ExperimentSpec.model_json_schema(), indent=2))
        return EXIT_OK
    if verb == "completion":
        from hpcsft.completion import completion

        return completion(rest)
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"hint: did you mean {near[0]}?\n" if near else ""
        print(f"error: no verb '{verb}'\n{hint}\n{USAGE}", file=sys.stderr)
        return EXIT_INVALID
    return _script(verb).main(rest)


def _script(verb: str) -> Any:
    """The module launch/VERB.py, which is a script beside the package and no part of it."""
    spec = importlib.util.spec_from_file_location(f"hpcsft_{verb}", source_root() / "launch" / f"{verb}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    before = sys.path[:]
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


if __name__ == "__main__":
    sys.exit(main())
