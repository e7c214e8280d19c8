"""Which process of which attempt this is."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hpcsft.attempt.fence import Token
from hpcsft.records import BY_HAND


@dataclass(frozen=True)
class TaskIdentity:
    """Which process of which job this is, told by the environment."""

    job_id: str
    restart: int
    rank: int
    local_rank: int
    world_size: int

    @classmethod
    def from_environment(cls) -> TaskIdentity:
        """Slurm's variables, those of submitit's local executor, or a single process started by hand."""
        env = os.environ
        if env.get("SUBMITIT_EXECUTOR") == "local":
            names = ("SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_LOCALID", "SUBMITIT_LOCAL_NTASKS")
            job_id, restart = env["HPCSFT_JOB_ID"], int(env.get("HPCSFT_RESTART", "0"))
        elif env.get("SUBMITIT_EXECUTOR") == "slurm":
            names = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
            array = env.get("SLURM_ARRAY_JOB_ID")
            job_id = f"{array}_{env['SLURM_ARRAY_TASK_ID']}" if array else env["SLURM_JOB_ID"]
            restart = int(env.get("SLURM_RESTART_COUNT", "0"))
        else:  # by hand, or under torchrun
            names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
            job_id, restart = f"{BY_HAND}{os.getpid() if 'RANK' not in env else os.getppid()}", 0
        rank, local_rank, world_size = (int(env.get(name, default)) for name, default in zip(names, "001", strict=True))
        return cls(job_id, restart, rank, local_rank, world_size)

    @property
    def token(self) -> Token:
        """What tells this attempt from all others."""
        return Token(job_id=self.job_id, restart=self.restart)

    @property
    def by_hand(self) -> bool:
        """Was it started by a person, so that nothing will start it again?"""
        return self.job_id.startswith(BY_HAND)
