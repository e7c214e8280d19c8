"""The stage `report`: report/{leaderboard.csv, report.json, report.md}."""

from __future__ import annotations

from hpcsft.errors import InputError
from hpcsft.records import write_json, write_text
from hpcsft.report.results import gather_results
from hpcsft.report.tables import leaderboard_csv, report_markdown
from hpcsft.stage import StageContext, require


def report(context: StageContext) -> None:
    """The body of the stage."""
    run, spec = context.run, context.spec
    if not run.provenance.exists():
        raise InputError(f"{run.provenance} is missing", "submit writes it; was it removed?")
    require(run.manifest, "preprocess")
    require(run.metrics, "train")
    for name in spec.evaluated_checkpoints():
        require(run.evaluate / name / "annotations.json", "judge")
    try:
        results = gather_results(run, spec)
    except ValueError as error:
        raise InputError(
            f"a result file is damaged: {error}", "remove it and run the stage that makes it again"
        ) from None
    run.report.mkdir(mode=0o700, exist_ok=True)
    write_json(run.report / "report.json", results)
    if spec.evaluate:
        write_text(run.report / "leaderboard.csv", leaderboard_csv(results))
    write_text(run.report / "report.md", report_markdown(results))
    context.say(f"wrote {run.report}")
