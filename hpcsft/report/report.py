"""The stage `report`: report/{leaderboard.csv, report.json, report.md, data.html}."""

from __future__ import annotations

from hpcsft.errors import InputError
from hpcsft.provenance.ended import record_ended
from hpcsft.records import read_json, write_json, write_text
from hpcsft.report.data_page import data_page
from hpcsft.report.leaderboard import leaderboard_csv
from hpcsft.report.markdown import report_markdown
from hpcsft.report.results import gather_results
from hpcsft.rundir import RunDir
from hpcsft.stage import StageContext, require


def report(context: StageContext) -> None:
    """The body of the stage."""
    run, spec = context.run, context.spec
    record_ended(run)
    if not run.provenance.exists():
        raise InputError(f"{run.provenance} is missing", "submit writes it; was it removed?")
    require(run.manifest, "preprocess")
    require(run.audit, "preprocess")
    require(run.metrics, "train")
    if spec.evaluate:
        require(run.checks, "judge")
        for name in [*spec.evaluated_checkpoints(), *spec.evaluate.outputs]:
            require(run.evaluate / name / "annotations.json", "judge")
    for name in spec.benchmarked_checkpoints():
        require(run.benchmark / name / "results.json", "benchmark")
    try:
        results = gather_results(run, spec)
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"a result file is damaged: {error}", "remove it and run the stage that makes it again"
        ) from None
    page = _data_page(run, spec.name)
    run.report.mkdir(mode=0o700, exist_ok=True)
    write_json(run.report / "report.json", results)
    if spec.evaluate:
        write_text(run.report / "leaderboard.csv", leaderboard_csv(results))
    write_text(run.report / "report.md", report_markdown(results))
    write_text(run.report / "data.html", page)
    context.say(f"wrote {run.report}")


def _data_page(run: RunDir, name: str) -> str:
    try:
        return data_page(read_json(run.audit), name)
    except (ValueError, LookupError, TypeError, AttributeError):
        hint = f"remove {run.manifest} and run preprocess again: python jobs/preprocess.py {run.path}"
        raise InputError(f"{run.audit}: damaged, or written by another version", hint) from None
