"""A MiniSlurm that keeps real accounts: slurmdbd in front of a MariaDB, and limits that are enforced.

`with AccountedSlurm(folder) as cluster:` takes about as long as a MiniSlurm and 5 s more; by hand
`python -m tests.cluster.accounting FOLDER` holds one until Ctrl-C.
"""

import shutil
import socket
import sys
import time
from pathlib import Path

from .minislurm import MiniSlurm
from .settings import PATH, slurm_conf

PROGRAMS = ("slurmdbd", "mariadb-install-db", "mariadbd", "sacctmgr", "setpriv")

ACCOUNTS = """
add account physics Description=p Organization=o
add account chemistry Description=c Organization=o
add qos long MaxWall=2-00:00:00 MaxTRESPerJob=node=3 MaxJobsPerUser=2 MaxSubmitJobsPerUser=5
add qos scavenger GraceTime=90 PreemptMode=requeue Flags=DenyOnLimit
add user root Account=physics DefaultAccount=physics QOS=normal,long,scavenger DefaultQOS=normal
add user root Account=chemistry Partition=high QOS=normal MaxWall=01:00:00 MaxJobs=7 MaxSubmitJobs=9
add user daemon Account=physics
"""
"""What sacctmgr is told at the start; `root`, who runs the tests, belongs to two accounts."""


def accounting_unavailable() -> str | None:
    """Why no accounts can be kept here; None if they can."""
    missing = [program for program in PROGRAMS if not shutil.which(program, path=PATH)]
    return (
        f"NO ACCOUNTING HERE: {', '.join(missing)} not found; apt-get install slurmdbd mariadb-server"
        if missing
        else None
    )


class AccountedSlurm(MiniSlurm):
    """A MiniSlurm with accounts: physics (default) and chemistry (in `high` only), QOS normal, long, scavenger.

    Associations, limits and QOS are enforced. The database is gone with the cluster.
    """

    def up(self, timeout_s: float = 60.0) -> None:
        """Start the cluster, then its accounts, then its controller again, which finds them."""
        super().up(timeout_s)
        try:
            self._start_accounts(timeout_s)
        except BaseException:
            self.down()
            raise

    def env(self) -> dict[str, str]:
        """As a MiniSlurm's; slurmdbd finds its database through MYSQL_UNIX_PORT."""
        return super().env() | {"MYSQL_UNIX_PORT": str(self.run_folder.resolve() / "db.sock")}

    def _start_accounts(self, timeout_s: float) -> None:
        run = self.run_folder.resolve()
        common = ("--no-defaults", "--user=root", f"--datadir={run}/db", "--innodb-log-file-size=16M")
        made = ("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
        self.run("mariadb-install-db", *common, *made)
        small = ("--skip-networking", "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0")
        places = (f"--socket={run}/db.sock", f"--pid-file={run}/db.pid")
        # They belong to no SLURM_CONF that `down` could find them by, so they die with this process.
        self._spawn("mariadbd", "setpriv", "--pdeathsig=KILL", "mariadbd", *common, *small, *places)
        self.wait_for("the database's socket", (run / "db.sock").exists, timeout_s)
        port = _free_port()
        (self.root / "slurmdbd.conf").write_text(self._slurmdbd_conf(port))
        (self.root / "slurmdbd.conf").chmod(0o600)
        self._spawn("slurmdbd", "setpriv", "--pdeathsig=KILL", "slurmdbd", "-D")
        self.extra |= {
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": "127.0.0.1",
            "AccountingStoragePort": str(port),
            "AccountingStoragePass": f"{run}/munge.sock",
            "AccountingStorageEnforce": "associations,limits,qos",
            "JobAcctGatherType": "jobacct_gather/linux",
        }
        self.stop("slurmctld")
        self.conf.write_text(slurm_conf(run, self.logs, self._ports, self.grace_s, self.extra))
        ask = ("sacctmgr", "show", "cluster")
        self.wait_for("slurmdbd", lambda: self.run(*ask, check=False).returncode == 0, timeout_s)
        self.run("sacctmgr", "-i", "add", "cluster", "minislurm")
        for line in ACCOUNTS.strip().splitlines():
            self.run("sacctmgr", "-i", *line.split())
        self.start("slurmctld")
        self.wait_idle(timeout_s)

    def _slurmdbd_conf(self, port: int) -> str:
        run = self.run_folder.resolve()
        settings = {
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={run}/munge.sock",
            "DbdHost": "localhost",
            "DbdAddr": "127.0.0.1",
            "DbdPort": str(port),
            "SlurmUser": "root",
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "localhost",
            "StorageUser": "root",
            "StorageLoc": "slurm_acct_db",
            "PidFile": f"{run}/slurmdbd.pid",
            "LogFile": f"{self.logs}/slurmdbd.log",
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    began = time.monotonic()
    with AccountedSlurm(Path(sys.argv[1])) as held:
        print(f"export SLURM_CONF={held.conf}   # up in {time.monotonic() - began:.1f} s", flush=True)
        try:
            time.sleep(10**6)
        except KeyboardInterrupt:
            print("down")
