"""What this cluster is and what hpcsft can promise here; with a spec, what stands against its submission."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.errors import EXIT_INVALID, EXIT_OK, report_errors
from hpcsft.spec import SET_OPTION

EPILOG = "exit codes: 0 nothing stands against a submission, 2 something does, 3 Slurm does not answer"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="doctor.py", description=__doc__, epilog=EPILOG)
    parser.add_argument("spec", metavar="SPEC.json", nargs="?", help="the experiment (default: only the cluster)")
    parser.add_argument("--set", **SET_OPTION, help="override a field of the spec; may be repeated")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    sys.stdout.reconfigure(errors="backslashreplace")
    if arguments.overrides and not arguments.spec:
        parser().error("--set is for a spec: doctor.py SPEC.json --set ...")
    return _examine(arguments) if arguments.spec else _explain(arguments.json)


def _explain(as_json: bool) -> int:
    from hpcsft.cluster.slurm import slurm_here
    from hpcsft.site.promises import local_promises, promises
    from hpcsft.site.read import read_site

    site = read_site() if slurm_here() else None
    told = promises(site) if site else local_promises()
    if as_json:
        _print_json(site=site and site.model_dump(), promises=[promise.model_dump() for promise in told])
    else:
        from rich.console import Console

        from hpcsft.site.describe import print_site

        print_site(site, told, Console())
    return EXIT_OK


def _examine(arguments: argparse.Namespace) -> int:
    from hpcsft.preflight.request import Request
    from hpcsft.preflight.summary import summary
    from hpcsft.spec import load_spec

    findings = Request.of(load_spec(arguments.spec, arguments.overrides)).findings()
    if arguments.json:
        _print_json(findings=[found.model_dump() for found in findings])
    else:
        print("\n".join([line for found in findings for line in found.lines()] + [summary(findings)]))
    return EXIT_INVALID if any(found.level == "error" for found in findings) else EXIT_OK


def _print_json(**document: Any) -> None:
    print(json.dumps({"schema_version": 1, **document}, indent=2))


if __name__ == "__main__":
    sys.exit(report_errors(main))
