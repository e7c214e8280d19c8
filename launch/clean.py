"""Remove old checkpoints of runs, after asking. Exported models stay, and so does what training needs to go on."""

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.errors import EXIT_FAILED, EXIT_OK, report_errors
from hpcsft.find_run import RUN_HELP, find_runs

EPILOG = (
    "Where training is done all checkpoints go; where it failed, waits or was cancelled all but the newest whole one. "
    "Runs whose training is pending or running are refused."
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="clean.py", description=__doc__, epilog=EPILOG)
    parser.add_argument("runs", metavar="RUN", nargs="+", help=f"{RUN_HELP}; or a folder of runs")
    parser.add_argument("--keep", type=int, metavar="N", help="keep the newest N whole checkpoints")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="show what would go, and remove nothing")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    if arguments.keep is not None and arguments.keep < 0:
        parser().error("--keep is a whole number from 0 on")
    from hpcsft.clean import clean, cleaning_lines, look_over
    from hpcsft.disk_use import size_text
    from hpcsft.question import agreed

    runs = find_runs(arguments.runs)
    chosen, refused = look_over(runs, arguments.keep)
    for error in refused:
        print("\n".join(error.lines()), file=sys.stderr)
    code = EXIT_FAILED if refused else EXIT_OK
    if not chosen:
        print("nothing to remove")
        return code
    for run, state, cleaning in chosen:
        print("\n".join(cleaning_lines(run, cleaning, state)))
    if arguments.dry_run:
        return code
    if not agreed(f"remove these {size_text(sum(each.cleaning.freed_bytes for each in chosen))}?", arguments.yes):
        print("left alone; --yes does not ask")
        return EXIT_FAILED
    again, _ = look_over([each.run for each in chosen], arguments.keep)  # a resume may have come while it was asked
    freed = sum(clean(each.run, each.cleaning) for each in again if each in chosen)
    print(f"freed {size_text(freed)}")
    return code if again == chosen else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(report_errors(main))
