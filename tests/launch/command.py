"""How the tests run a command: in a process of its own, as a person would, with a PATH that they choose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60


def environment(path: Path | None = None) -> dict[str, str]:
    """This process's environment without what would change the command; PATH is the folder `path`, if given."""
    unwanted = ("PYTHONPATH", "PYTHONUNBUFFERED", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    ours = ("SLURM_", "SBATCH_", "SUBMITIT_")
    kept = {name: value for name, value in kept.items() if name == "SLURM_CONF" or not name.startswith(ours)}
    return {**kept, "PATH": str(path)} if path else kept


def launch(
    script: str, *arguments: object, cwd: Path, path: Path | None = None, timeout_s: float = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run launch/SCRIPT in the folder `cwd` and wait for its end."""
    command = [sys.executable, str(ROOT / "launch" / script), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=timeout_s, env=environment(path), check=False
    )


def loaded_by_look(script: str, spec: Path, cwd: Path) -> str:
    """Exit code of launch/SCRIPT on `spec`, and which of torch, deepspeed and datasets it has loaded, as a line."""
    code = (
        f"import sys, runpy; sys.argv = [{script!r}, {str(spec)!r}]\n"
        f"try: runpy.run_path({str(ROOT / 'launch' / script)!r}, run_name='__main__')\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, [name for name in ('torch', 'deepspeed', 'datasets') if sys.modules.get(name)], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=TIMEOUT_S, env=environment(), check=True
    )
    return done.stderr.strip()


def empty_path(folder: Path) -> Path:
    """A folder for PATH in which there is no program at all, so no Slurm."""
    folder.mkdir()
    return folder


def slurm_path(folder: Path) -> Path:
    """A folder for PATH with an sbatch and an srun that do nothing: enough for a dry run to render Slurm's scripts."""
    folder.mkdir()
    for program in ("sbatch", "srun"):
        (folder / program).touch(mode=0o755)
    return folder
