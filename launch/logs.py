"""Print the log of a stage: of its newest attempt, of the rank that was asked for."""

import argparse
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from hpcsft.errors import HpcsftError, report_errors
from hpcsft.rundir import RunDir

POLL_INTERVAL_S = 0.5


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="logs.py", description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument("stage", metavar="STAGE", nargs="?", help="default: the stage that started last")
    parser.add_argument("--rank", type=int, default=0, help="whose log (default 0)")
    parser.add_argument("--follow", action="store_true", help="go on printing what is appended")
    return parser


def newest_attempt(run: RunDir, stage: str | None) -> Path:
    """The log folder of the task that failed, else of the attempt that started last."""
    failed = [status.log for status in run.read_statuses() if status.state == "failed" and status.log]
    if told := [run.path / log for log in failed if stage in (None, Path(log).parts[1])]:
        return told[0].parent
    attempts = [path for path in run.logs.glob(f"{stage or '*'}/*") if path.is_dir()]
    if not attempts:
        stages = sorted(path.name for path in run.logs.iterdir() if path.is_dir())
        hint = f"stages with logs: {', '.join(stages)}" if stages else "no stage has started yet"
        raise HpcsftError(f"no log of {stage or 'any stage'}", hint)
    return max(attempts, key=lambda path: (path.stat().st_mtime, path.name))


def print_from(path: Path, offset: int) -> int:
    """Print what stands in `path` from byte `offset` on; returns the new end."""
    with open(path, "rb") as file:
        file.seek(offset)
        text = file.read()
    sys.stdout.buffer.write(text)
    sys.stdout.flush()
    return offset + len(text)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    run = RunDir.open(arguments.run_dir)
    folder = newest_attempt(run, arguments.stage)
    files = [folder / f"{arguments.rank}.{kind}" for kind in ("out", "err")]
    if not files[0].exists():
        ranks = ", ".join(sorted(path.stem for path in folder.glob("*.out")))
        raise HpcsftError(f"{folder.relative_to(run.path)} has no rank {arguments.rank}", f"ranks: {ranks}")
    offsets = [0, 0]
    while True:
        for place, file in enumerate(files):
            offsets[place] = print_from(file, offsets[place])
        if not arguments.follow:
            return 0
        time.sleep(POLL_INTERVAL_S)


if __name__ == "__main__":
    sys.exit(report_errors(main))
