"""Where runs are looked for: ./runs, $HPCSFT_RUNS_DIR, and every folder that runs were submitted into.

Those folders stand in $XDG_STATE_HOME/hpcsft/runs_dirs, one absolute path a line. It is a convenience: a home that is
full, read-only or absent stands in nobody's way.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from hpcsft.rundir import RunDir

NAME = re.compile(r"[\w.-]+-[0-9a-f]{8}")
HERE = Path("runs")
"""What a spec calls `runs_dir` where it does not say."""


def memory_file() -> Path:
    """The file in which folders of runs are remembered. RuntimeError where nobody knows a home."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state") / "hpcsft" / "runs_dirs"


def remember_runs_dir(folder: Path) -> None:
    """Remember a folder of runs, once. What stands against it is no error."""
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        file = memory_file()
        line = str(folder.absolute())
        known = file.read_text(encoding="utf-8") if file.exists() else ""
        if line in known.splitlines() or "\n" in line:
            return
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(fd, "w", encoding="utf-8") as out:
            out.write(("\n" if known and not known.endswith("\n") else "") + line + "\n")


def known_runs_dirs() -> list[Path]:
    """The folders of runs that exist, each once: those here and in the environment first, then the remembered ones."""
    places = [HERE]
    if told := os.environ.get("HPCSFT_RUNS_DIR"):
        places.append(Path(told))
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        places += [Path(line) for line in memory_file().read_text(encoding="utf-8").splitlines() if os.path.isabs(line)]
    found: dict[str, Path] = {}
    for place in places:
        if _is_folder(place):
            found.setdefault(os.path.realpath(place), place)
    return list(found.values())


def runs_in(folder: Path) -> list[RunDir]:
    """The run directories in a folder, that which was submitted last first. OSError if it cannot be read."""
    return _newest_first(_entries(folder))


def known_runs() -> list[RunDir]:
    """All runs in all known places, that which was submitted last first."""
    return _newest_first(_known_entries())


def known_run_names() -> list[str]:
    """Names in all known places that look like those of runs: quicker, because nothing is opened."""
    return [name for path in _known_entries() if NAME.fullmatch(name := os.path.basename(path))]


def submitted_s(run: RunDir) -> float | None:
    """When `run` was last submitted, or else made, in seconds since 1970; None if there is no run."""
    with contextlib.suppress(OSError):
        return run.submission.stat().st_mtime
    with contextlib.suppress(OSError):
        run.plan.stat()
        return run.spec.stat().st_mtime
    return None


def _known_entries() -> list[str]:
    paths: list[str] = []
    for folder in known_runs_dirs():
        with contextlib.suppress(OSError):
            paths += _entries(folder)
    return paths


def _entries(folder: Path) -> list[str]:
    """Paths of what may be runs in a folder; .cache and the like are none."""
    with os.scandir(folder) as entries:
        return [entry.path for entry in entries if not entry.name.startswith(".")]


def _newest_first(paths: Iterable[str]) -> list[RunDir]:
    runs = [(submitted_s(run), run) for run in map(RunDir, paths)]
    found = [(when_s, run) for when_s, run in runs if when_s is not None]
    return [run for _, run in sorted(found, key=lambda item: item[0], reverse=True)]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # of somebody else
        return False
