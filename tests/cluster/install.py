"""`python -m tests.cluster.install`: install with apt-get what is missing of Slurm, munge and bubblewrap, if we may."""

import os
import shutil
import subprocess
import sys

from .settings import PATH, PROGRAMS

PACKAGES = ("slurm-wlm", "munge", "bubblewrap")
ISOLATION = "bwrap"
"""With it tests/cluster/stand_in/apptainer isolates what runs in a container."""


def main() -> int:
    """Exit status: 0 if Slurm is there or cannot be installed from here, apt-get's own if that failed."""
    missing = [program for program in (*PROGRAMS, ISOLATION) if not shutil.which(program, path=PATH)]
    if not missing:
        print("Slurm, munge and bubblewrap are installed.")
        return 0
    apt = shutil.which("apt-get")
    if not apt or os.geteuid() != 0:
        obstacle = "you are not root" if apt else "there is no apt-get here"
        print(
            f"NOT INSTALLED: {', '.join(missing)}, and {obstacle}.",
            "Tests marked `slurm` will be skipped, or without bwrap those of containers. To have them:",
            f"sudo apt-get install {' '.join(PACKAGES)}",
            "(elsewhere, your system's packages of the same), and run the tests as root.",
            sep="\n",
            file=sys.stderr,
        )
        return 0
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        if status := subprocess.run([apt, "-o", "DPkg::Lock::Timeout=120", *step], env=quiet).returncode:
            print(f"apt-get {step[0]} failed with status {status}.", file=sys.stderr)
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
