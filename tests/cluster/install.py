"""`python -m tests.cluster.install`: install Slurm and munge with apt-get, if they are missing and we may."""

import os
import shutil
import subprocess
import sys

from .settings import PATH, PROGRAMS

PACKAGES = ("slurm-wlm", "munge")


def main() -> int:
    """Exit status: 0 if Slurm is there or cannot be installed from here, apt-get's own if that failed."""
    missing = [program for program in PROGRAMS if not shutil.which(program, path=PATH)]
    if not missing:
        print("Slurm and munge are installed.")
        return 0
    apt = shutil.which("apt-get")
    if not apt or os.geteuid() != 0:
        obstacle = "you are not root" if apt else "there is no apt-get here"
        print(
            f"SLURM IS NOT INSTALLED ({', '.join(missing)} not found), and {obstacle}.",
            f"Tests marked `slurm` will be skipped. To have them: sudo apt-get install {' '.join(PACKAGES)}",
            "(elsewhere, your system's packages of Slurm and munge), and run the tests as root.",
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
