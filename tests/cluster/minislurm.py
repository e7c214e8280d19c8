"""MiniSlurm: munged, slurmctld and four slurmd on one machine, without systemd, beside any other Slurm.

    with MiniSlurm(tmp_path / "slurm") as cluster:
        job_id = cluster.submit("srun hostname", "--nodes=2")
        cluster.wait_job(job_id, "COMPLETED")

Everything lives below one folder: slurm.conf, logs/, jobs/ (output of what `submit` submits), and
minislurm-run/, which holds sockets, spool and state, and goes away with the cluster.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from .processes import end_all, owned
from .settings import MARKER, NODES, PATH, is_free, reserved_ports, slurm_conf, unavailable, write_settings

T = TypeVar("T")
LONGEST_RUN_DIR = 79  # a unix socket's path holds 107 bytes; "/n1/n1_4294967295.4294967295" needs 28
DAEMONS = ("munged", "slurmctld", *NODES)
# A process of its own, whose standard input ends when its parent does, even by SIGKILL, which skips atexit.
GUARD = """
import sys
from tests.cluster.minislurm import MiniSlurm
sys.stdin.read()
MiniSlurm(sys.argv[1]).down()
"""


class SlurmError(RuntimeError):
    """The cluster did not come up, or one of its commands failed."""


class MiniSlurm:
    """A cluster of nodes n1 to n4, 4 CPUs and 4 pretend GPUs each; partitions `low` (default) and `high`.

    A job in `high` preempts jobs in `low`, which Slurm requeues after `grace_s` seconds between SIGTERM and
    the kill. `extra` adds lines to slurm.conf or replaces them. With `guard`, the cluster ends when this
    process does, whatever ends it. A cluster belongs to its folder: any process may call `down` on it.
    """

    def __init__(
        self,
        root: str | Path,
        extra: Mapping[str, str] | None = None,
        *,
        grace_s: int = 0,
        guard: bool = True,
    ) -> None:
        self.root = Path(root).absolute()
        self.extra, self.grace_s, self.guard = dict(extra or {}), grace_s, guard
        self.conf, self.logs, self.jobs = (self.root / name for name in ("slurm.conf", "logs", "jobs"))
        self.run_folder = self.root / "minislurm-run"  # or a link to a shorter path
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: list[int] = []

    def __enter__(self) -> "MiniSlurm":
        self.up()
        return self

    def __exit__(self, *exc: object) -> None:
        self.down()

    def env(self) -> dict[str, str]:
        """The environment for Slurm's clients: this cluster, and nothing that a surrounding job has set."""
        foreign = ("SLURM", "SBATCH_", "SALLOC_", "SRUN_", "SQUEUE_", "SINFO_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return kept | {"PATH": PATH, "SLURM_CONF": str(self.conf)}

    def up(self, timeout_s: float = 60.0) -> None:
        """Clear what an earlier cluster left in `root`, start the daemons, wait for four idle nodes."""
        if reason := unavailable():
            raise SlurmError(reason)
        self.down()
        try:
            with reserved_ports() as ports:
                self._prepare(ports)
                if self.guard:
                    self._spawn("guard", sys.executable, "-c", GUARD, str(self.root))
                self.start("munged")
                self.wait_for("munged's socket", (self.run_folder / "munge.sock").exists, timeout_s)
                # The controller comes first: a slurmd that does not find one tries again only after a second.
                self.start("slurmctld")
                self.wait_for("slurmctld's port", lambda: not is_free(ports[0]), timeout_s)
                for node in NODES:
                    self.start(node)
                self.wait_for("slurmd's ports", lambda: not any(map(is_free, ports)), timeout_s)
            self.wait_idle(timeout_s)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End every process, remove every socket; logs stay. Safe at any time, twice, from any process."""
        end_all(self.conf)
        for name in list(self._children):
            self.kill(name)
        if self.run_folder.exists():
            shutil.rmtree(self.run_folder.resolve())
        self.run_folder.unlink(missing_ok=True)

    def is_up(self) -> bool:
        """Do all daemons live? Asks the process table, which answers even when the controller does not."""
        names = list(owned(self.conf).values())
        return {"munged", "slurmctld"} <= set(names) and names.count("slurmd") >= len(NODES)

    def start(self, name: str) -> None:
        """Start one daemon (munged, slurmctld, n1 ... n4), for instance after `kill`."""
        run = self.run_folder.resolve()
        if name == "munged":
            files = (f"--{kind}-file={run}/munge.{kind}" for kind in ("key", "pid", "log", "seed"))
            argv = ("munged", "-F", "--force", "--origin=127.0.0.1", f"--socket={run}/munge.sock", *files)
        else:
            argv = ("slurmctld",) if name == "slurmctld" else ("slurmd", "-N", name)
            argv += ("-D", "-f", str(self.conf))
        self._spawn(name, *argv)

    def kill(self, name: str) -> None:
        """SIGKILL one daemon that this object started. Jobs outlive their slurmd, as on a real node."""
        child = self._children.pop(name)
        child.kill()
        child.communicate()

    def stop(self, name: str, timeout_s: float = 30.0) -> None:
        """End one daemon that this object started with SIGTERM: slurmctld then saves the state of all jobs."""
        child = self._children.pop(name)
        child.terminate()
        child.communicate(timeout=timeout_s)

    def freeze(self, name: str) -> None:
        """SIGSTOP one daemon that this object started: it neither answers nor goes away."""
        self._children[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT a daemon after `freeze`."""
        self._children[name].send_signal(signal.SIGCONT)

    def reconfigure(self, extra: Mapping[str, str] | None = None, *, grace_s: int = 0) -> None:
        """Replace `extra` and `grace_s` while jobs run; slurmctld reads the new slurm.conf before this returns."""
        self.extra, self.grace_s = dict(extra or {}), grace_s
        self.conf.write_text(slurm_conf(self.run_folder.resolve(), self.logs, self._ports, grace_s, self.extra))
        self.run("scontrol", "reconfigure")

    def run(
        self, *argv: str, check: bool = True, input: str = "", timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a client command; with `check`, a failure raises SlurmError with what it printed."""
        done = subprocess.run(argv, env=self.env(), input=input, capture_output=True, text=True, timeout=timeout_s)
        if check and done.returncode:
            raise SlurmError(f"{' '.join(argv)} returned {done.returncode}: {done.stderr.strip()}")
        return done

    def submit(self, script: str, *options: str) -> str:
        """Submit the shell commands `script` and return the job's id; the output goes to jobs/ID.out."""
        argv = ("sbatch", "--parsable", f"--chdir={self.jobs}", f"--output={self.jobs}/%j.out", *options)
        return self.run(*argv, input=f"#!/bin/bash\n{script}\n").stdout.strip()

    def job(self, job_id: str | int) -> dict[str, str]:
        """The fields of `scontrol show job` (an array's first task); a value holding " Word=" is cut."""
        line = self.run("scontrol", "show", "job", "-o", str(job_id)).stdout.partition("\n")[0]
        return dict(re.findall(r"([A-Z][\w:/]*)=(.*?)(?=\s+[A-Z][\w:/]*=|\s*$)", line))

    def wait_job(self, job_id: str | int, states: str | tuple[str, ...], timeout_s: float = 60.0) -> dict[str, str]:
        """Wait until the job is in one of `states` (RUNNING, COMPLETED, ...) and return its fields."""
        wanted = (states,) if isinstance(states, str) else states

        def arrived() -> dict[str, str] | None:
            job = self.job(job_id)
            return job if job["JobState"] in wanted else None

        return self.wait_for(f"job {job_id} to be {' or '.join(wanted)}", arrived, timeout_s) or {}

    def requeue_now(self, job_id: str | int, timeout_s: float = 30.0) -> None:
        """Make a requeued job eligible at once instead of when its old credential has expired.

        At once is in two seconds: started in the very second of its requeue it would count as revoked, and die.
        """
        self.wait_job(job_id, "PENDING", timeout_s)
        self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now+2")

    def wait_idle(self, timeout_s: float = 30.0) -> None:
        """Wait until all four nodes are idle: up, and with no job running or completing."""

        def idle() -> bool:
            states = self.run("sinfo", "-hN", "-p", "low", "-o", "%T", check=False).stdout.split()
            return states == ["idle"] * len(NODES)

        self.wait_for("four idle nodes", idle, timeout_s)

    def wait_for(self, what: str, condition: Callable[[], T], timeout_s: float) -> T:
        """Poll `condition` until it is true, and return it; a daemon that dies unasked ends the wait."""
        deadline = time.monotonic() + timeout_s
        while not (result := condition()):
            if dead := [name for name, child in self._children.items() if child.poll() is not None]:
                raise SlurmError(f"{', '.join(dead)} died while waiting for {what}\n{self.drain_logs()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout_s:g} s for {what}\n{self.overview()}{self.drain_logs()}")
            time.sleep(0.1)
        return result

    def overview(self) -> str:
        """Nodes and jobs, as sinfo and squeue print them."""
        return "".join(self.run(*argv, check=False).stdout for argv in (("sinfo",), ("squeue", "-t", "all")))

    def drain_logs(self, num_lines: int = 8) -> str:
        """The last lines of every daemon's log, for error messages."""
        parts = []
        for name in (*DAEMONS, "guard"):
            texts = (path.read_text(errors="replace") for path in self.logs.glob(f"{name}.*"))
            if lines := max(texts, key=len, default="").splitlines()[-num_lines:]:
                parts.append("\n".join([f"--- {name}", *lines, ""]))
        return "".join(parts)

    def _prepare(self, ports: list[int]) -> None:
        """Lay out the folder of a new cluster: configuration, key, empty spool and state."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(self.root.iterdir()) and not (self.conf.is_file() and MARKER in self.conf.read_text()):
            raise SlurmError(f"{self.root} holds something else; a MiniSlurm wants a folder of its own")
        if len(os.fsencode(self.run_folder)) > LONGEST_RUN_DIR:
            self.run_folder.symlink_to(tempfile.mkdtemp(prefix="minislurm-", dir="/tmp"))
        run = self.run_folder.resolve()
        run.mkdir(mode=0o700, exist_ok=True)
        self._ports = ports
        write_settings(self.root, run, self.logs, ports, self.grace_s, self.extra)
        for folder in (self.logs, self.jobs):  # job ids start from 1 again, and must not find old output
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (self.logs, self.jobs, run / "state", *(run / node for node in NODES)):
            folder.mkdir(mode=0o700)

    def _spawn(self, name: str, *argv: str) -> None:
        """Start a child in a session of its own: Ctrl-C at the terminal ends the tests, not the daemons."""
        with open(self.logs / f"{name}.err", "ab") as log:
            self._children[name] = subprocess.Popen(
                argv,
                env=self.env(),
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE if name == "guard" else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
