"""The console script `hpcsft`: the commands of launch/ as verbs, and the schema of the spec."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable

from hpcsft.cluster.snapshot import source_root
from hpcsft.errors import EXIT_INVALID, EXIT_OK, report_errors

USAGE = """usage: hpcsft VERB ...   (hpcsft VERB --help tells more)

  preview SPEC.json  see what the first rows of the data become
  plan SPEC.json     see what it will cost: memory, GPU-hours, disk
  submit SPEC.json   turn a spec into jobs
  monitor RUN_DIR    see how a run goes
  logs RUN_DIR       read its logs
  cancel RUN_DIR     stop it
  resume RUN_DIR     submit again what failed
  score FILE ...     score AlpacaEval annotation files
  schema [--table]   the JSON schema of a spec, or its fields as a Markdown table"""

VERBS = ("preview", "plan", "submit", "monitor", "logs", "cancel", "resume", "score")


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
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
    if verb not in VERBS:
        print(f"error: no verb '{verb}'\n\n{USAGE}", file=sys.stderr)
        return EXIT_INVALID
    return report_errors(lambda argv: _main_of(verb)(argv), rest)


def _main_of(verb: str) -> Callable[[list[str] | None], int]:
    """The `main` of launch/VERB.py, which is a script beside the package and no part of it."""
    spec = importlib.util.spec_from_file_location(f"hpcsft_{verb}", source_root() / "launch" / f"{verb}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    before = sys.path[:]
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module.main


if __name__ == "__main__":
    sys.exit(main())
