"""Ends of logs, with what they should be taken for.

Those of ranks and of srun were collected from runs on the Slurm of the tests (shortened); those of GPUs, NCCL, cgroups
and module systems are as published in issues of PyTorch, DeepSpeed and Slurm's users. `>` marks the line that decides.
"""

from __future__ import annotations

from typing import NamedTuple

FRAMES = """\
Traceback (most recent call last):
  File "/runs/tiny/code/jobs/train.py", line 26, in <module>
    run_stage("train", body)
  File "/runs/tiny/code/hpcsft/train/loop.py", line 155, in run
    boundary = self._step(step, saved_at_s)
               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"""

EPILOGUE = f"""\
submitit ERROR (2026-11-30 03:56:23,557) - Submitted job triggered an exception
{FRAMES}\
RuntimeError: stage train failed; its log is /runs/tiny/logs/train/1_0/0.err
"""

NOISE = """\
/lib/torch/distributed/c10d_logger.py:83: FutureWarning: `torch.distributed.all_gather_into_tensor` is deprecated.
  return func(*args, **kwargs)
[2026-11-30 03:58:48,224] [WARNING] [logging.py:123:log_dist] [Rank 0] CUDA out of memory is not meant
submitit WARNING (2026-11-30 03:56:44,660) - Bypassing signal SIGCONT
"""

GLOO = (
    "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:21899: "
    "Connection reset by peer. This is typically caused by a remote worker hanging or bugs in the application."
)

NCCL_WATCHDOG = (
    "[rank3]:[E321 02:07:08.408271257 ProcessGroupNCCL.cpp:607] [Rank 3] Watchdog caught collective operation timeout: "
    "WorkNCCL(SeqNum=1580, OpType=ALLREDUCE, NumelIn=466119168, NumelOut=466119168, Timeout(ms)=600000) ran for 600060 "
    "milliseconds before timing out."
)

CUDA_OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 22.00 MiB. GPU 0 has a total capacity of 23.65 GiB "
    "of which 11.06 MiB is free."
)


class Excerpt(NamedTuple):
    """The end of a log, what the journal calls the end, what Slurm calls it, and the kind that it is."""

    text: str
    cause: str | None
    kind: str
    slurm_state: str | None = "FAILED"
    stage: str = "train"
    began: bool = True
    """Does the journal hold the start of the attempt?"""

    @property
    def lines(self) -> list[str]:
        return [line.removeprefix("> ") for line in self.text.splitlines()]

    @property
    def decisive(self) -> int | None:
        return next((index for index, line in enumerate(self.text.splitlines()) if line.startswith("> ")), None)


def ranked(text: str, rank: int = 1) -> str:
    """The text as torch's hook prints it."""
    marks = ["> " if line.startswith("> ") else "" for line in text.splitlines()]
    bare = [line.removeprefix("> ") for line in text.splitlines()]
    return "\n".join(f"{mark}[rank{rank}]: {line}" for mark, line in zip(marks, bare, strict=True)) + "\n"


EXCERPTS = {
    # hpcsft's own reports
    "bad data": Excerpt(
        f"> error: no training row is left after preprocessing\nhint: is data.max_length long enough?\n{EPILOGUE}",
        "code",
        "data",
        stage="preprocess",
    ),
    "not finite": Excerpt(
        f"{NOISE}> error: step 2 is not finite: its loss is 6.3969, but its gradient norm is inf\nhint: x\n{EPILOGUE}",
        "code",
        "not_finite",
    ),
    "validation is nan": Excerpt("> error: the validation loss after step 10 is nan\n", "code", "not_finite"),
    "no key": Excerpt(
        f"> error: the judge needs a key, but OPENAI_API_KEY is not set\nhint: export it\n{EPILOGUE}",
        "waiting",
        "judge",
        stage="judge",
    ),
    "the judge's model is missing": Excerpt(
        "> error: evaluate.judge.model: /models/none: no such folder\n", "code", "judge", stage="judge"
    ),
    "a package of an adapter": Excerpt(
        "> error: /models/lora: an adapter, and peft is not installed\nhint: pip install peft\n", "code", "environment"
    ),
    "a GPU too small to generate": Excerpt(
        "> error: evaluate.generation: out of GPU memory with one prompt of 900 tokens alone\n",
        "code",
        "out_of_memory",
        stage="generate",
    ),
    "stopped with everything kept": Excerpt(
        f"{NOISE}> error: stopped after step 0: SIGUSR2\n", "timeout", "time_limit"
    ),
    # tracebacks
    "a code error": Excerpt(
        NOISE + EPILOGUE.splitlines()[0] + "\n" + ranked(f"{FRAMES}> KeyError: 'missing'\n"), "code", "code"
    ),
    "a code error on every rank's way out": Excerpt(
        ranked(f"{FRAMES}> KeyError: 'missing'\n")
        + "[rank1]:[W1130 ProcessGroupNCCL.cpp:1250] Warning: process group has NOT been destroyed, call "
        "destroy_process_group\n/usr/lib/python3.11/multiprocessing/resource_tracker.py:254: UserWarning: "
        "resource_tracker: There appear to be 1 leaked semaphore objects to clean up at shutdown\n",
        "code",
        "code",
    ),
    "raised from another": Excerpt(
        ranked(
            f"{FRAMES}KeyError: 'missing'\n\nThe above exception was the direct cause of the following exception:\n\n"
            f"{FRAMES}> ValueError: bad thing:\nsecond line: of it\nthird\n"
        ),
        "code",
        "code",
    ),
    "raised while handling another": Excerpt(
        ranked(
            f"{FRAMES}KeyError: 'missing'\n\nDuring handling of the above exception, another exception occurred:\n\n"
            f"{FRAMES}> FileNotFoundError: [Errno 2] No such file or directory: '/nonexistent/x'\n"
        ),
        "code",
        "code",
    ),
    "an echo while handling": Excerpt(
        f"{FRAMES}> KeyError: 'missing'\n\nDuring handling of the above exception, another exception occurred:\n\n"
        f"{FRAMES}{GLOO}\n",
        "code",
        "code",
    ),
    "a syntax error": Excerpt(
        f'{FRAMES}  File "/runs/tiny/code/hpcsft/train/loop.py", line 10\n    def (:\n        ^\n'
        "> SyntaxError: invalid syntax\n",
        "code",
        "code",
    ),
    "a traceback that ended nothing, and one that did": Excerpt(
        f"Exception ignored in: <function Pool.__del__ at 0x7f>\n{FRAMES}AttributeError: 'Pool' has no '_state'\n"
        f"--- Logging error ---\n{FRAMES}OSError: [Errno 9] Bad file descriptor\n"
        f"{FRAMES}> struct.error: unpack requires a buffer of 4 bytes\n",
        "code",
        "code",
    ),
    "a killed kernel": Excerpt(
        f"{ranked(FRAMES)}> [rank1]: torch.AcceleratorError: CUDA error: device-side assert triggered\n"
        "[rank1]: Search for `cudaErrorAssert' in https://docs.nvidia.com/cuda/\n"
        "terminate called after throwing an instance of 'c10::Error'\n"
        "  what():  CUDA error: device-side assert triggered\n",
        "code",
        "code",
    ),
    # memory
    "CUDA out of memory": Excerpt(f"{NOISE}{ranked(f'{FRAMES}> {CUDA_OOM}', 3)}", "out_of_memory", "out_of_memory"),
    "CUDA out of memory in cuBLAS": Excerpt(
        f"{FRAMES}> RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`\n",
        "out_of_memory",
        "out_of_memory",
    ),
    "CUDA out of memory, then worse": Excerpt(
        f"{FRAMES}> {CUDA_OOM}\n\nDuring handling of the above exception, another exception occurred:\n\n"
        f"{FRAMES}RuntimeError: CUDA error: an illegal memory access was encountered\n",
        "out_of_memory",
        "out_of_memory",
    ),
    "out of memory in torch on the CPU": Excerpt(
        ranked(
            f"{FRAMES}> RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't "
            "allocate memory: you tried to allocate 4503599627370496 bytes. Error code 12 (Cannot allocate memory)\n"
        ),
        "out_of_memory",
        "host_memory",
    ),
    "out of memory in numpy": Excerpt(
        ranked(
            f"{FRAMES}> numpy._core._exceptions._ArrayMemoryError: Unable to allocate 2.00 PiB for an array with shape "
            "(281474976710656,) and data type float64\n"
        ),
        "out_of_memory",
        "host_memory",
    ),
    "a cgroup's limit": Excerpt(
        "srun: error: n2: task 3: Killed\nsrun: Terminating StepId=440575.0\n"
        "> slurmstepd: error: Detected 1 oom_kill event in StepId=440575.0. "
        "Some of the step tasks have been OOM Killed.\n",
        "out_of_memory",
        "host_memory",
    ),
    "a cgroup's limit, as older Slurms tell it": Excerpt(
        "> slurmstepd: error: Detected 1 oom-kill event(s) in step 3495064.0 cgroup. Some of your processes may have "
        "been killed by the cgroup out-of-memory handler.\nsrun: error: n1: task 4: Out Of Memory\n",
        "out_of_memory",
        "host_memory",
        "OUT_OF_MEMORY",
    ),
    "a cgroup's limit that only Slurm's accounts tell": Excerpt(
        "> srun: error: n2: task 1: Killed\n", "rank_failure", "host_memory", "OUT_OF_MEMORY"
    ),
    "a task out of memory": Excerpt(
        "srun: error: n1: task 0: Killed\n> srun: error: nid001277: tasks 1-3: Out Of Memory\n",
        "rank_failure",
        "host_memory",
    ),
    # disk
    "a full disk": Excerpt(
        ranked(f"{FRAMES}> OSError: [Errno 28] No space left on device: '/runs/tiny/metrics.jsonl'\n", 0),
        "disk_full",
        "disk_full",
    ),
    "a disk so full that the log is torn": Excerpt(
        "submitit ERROR (2026-11-30 04:09:01,910) - Could not dump error:\n> [Errno 28] No space left on device\n\n"
        "because of [Errno 28] No space left on device\n[rank0]: During handling of the above exception, another exc",
        "code",
        "disk_full",
    ),
    "a full disk under torch.save": Excerpt(
        f"{FRAMES}> OSError: [Errno 28] No space left on device\n\n"
        f"During handling of the above exception, another exception occurred:\n\n{FRAMES}"
        "RuntimeError: [enforce fail at inline_container.cc:664] . unexpected pos 576 vs 470\n",
        "code",
        "disk_full",
    ),
    "a quota": Excerpt(f"{FRAMES}> OSError: [Errno 122] Disk quota exceeded\n", "disk_full", "disk_full"),
    # communication
    "an NCCL timeout": Excerpt(
        f"{NOISE}> {NCCL_WATCHDOG}\n"
        "[rank3]:[E321 02:07:08.465150152 ProcessGroupNCCL.cpp:1664] [PG 1 Rank 3] Exception (either an error or "
        "timeout) detected by watchdog at work: 1580, last enqueued NCCL work: 1582, last completed NCCL work: 1579.\n"
        "terminate called after throwing an instance of 'c10::DistBackendError'\n"
        "  what():  [PG 1 Rank 3] Process group watchdog thread terminated with exception: [Rank 3] Watchdog caught "
        "collective operation timeout\nFatal Python error: Aborted\n\nThread 0x00007f (most recent call first):\n",
        "rank_failure",
        "nccl",
    ),
    "an NCCL error": Excerpt(
        ranked(
            f"{FRAMES}> torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/"
            "ProcessGroupNCCL.cpp:1333, unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2"
            "\nncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error. \n"
            "Last error:\nsocketStartConnect: Connect to 192.168.19.14<52822> failed : No route to host\n",
            0,
        ),
        "rank_failure",
        "nccl",
    ),
    "an error of the code, and NCCL's end": Excerpt(
        f"n1:77:99 [0] NCCL INFO comm 0x7f\n{FRAMES}> IndexError: list index\n{NCCL_WATCHDOG}\n",
        "code",
        "code",
    ),
    "nobody at the rendezvous": Excerpt(
        f"{FRAMES}> torch.distributed.DistNetworkError: The client socket has timed out after 600000ms while trying to "
        "connect to (n1, 29500).\n",
        "rank_failure",
        "nccl",
    ),
    "a peer that is gone": Excerpt(NOISE + ranked(f"{FRAMES}> {GLOO}\n", 0), "rank_failure", "rank_died"),
    # what srun and slurmstepd say
    "a killed rank": Excerpt(
        "> srun: error: n2: task 1: Killed\nsrun: launch/slurm: _step_signal: Terminating StepId=6.0\n"
        "slurmstepd-n1: error: *** STEP 6.0 ON n1 CANCELLED AT 2026-11-30T03:56:44 ***\n"
        "srun: error: n1: task 0: Exited with exit code 1\nsrun: Force Terminated StepId=6.0\n",
        "rank_failure",
        "rank_died",
    ),
    "a segmentation fault": Excerpt(
        "> srun: error: n2: task 1: Segmentation fault\nsrun: error: n1: task 0: Exited with exit code 1\n",
        "rank_failure",
        "rank_died",
    ),
    "a segmentation fault in the rank's own log": Excerpt(
        f'{NOISE}> Fatal Python error: Segmentation fault\n\nCurrent thread 0x7f (most recent call first):\n  File "x"',
        "rank_failure",
        "rank_died",
    ),
    "an exception of C++": Excerpt(
        "terminate called after throwing an instance of 'std::runtime_error'\n>   what():  a header is not whole\n"
        "Fatal Python error: Aborted\n",
        "rank_failure",
        "rank_died",
    ),
    "an exit without a word": Excerpt(
        "> srun: error: n2: task 1: Exited with exit code 7\nsrun: error: n1: task 0: Exited with exit code 1\n",
        "rank_failure",
        "rank_died",
    ),
    "scancel": Excerpt(
        "srun: Job step aborted: Waiting up to 7 seconds for job step to finish.\nsrun: got SIGCONT\n"
        "> slurmstepd-n1: error: *** JOB 19 ON n1 CANCELLED AT 2026-11-30T03:59:00 ***\n"
        "srun: forcing job termination\n"
        "slurmstepd-n1: error: *** STEP 19.0 ON n1 CANCELLED AT 2026-11-30T03:59:00 ***\n",
        "preemption",
        "cancelled",
        "CANCELLED",
    ),
    "a preemption": Excerpt(
        "srun: Job step aborted: Waiting up to 7 seconds for job step to finish.\n"
        "> slurmstepd: error: *** STEP 21.0 ON n1 CANCELLED AT 2026-11-30T04:00:38 DUE TO PREEMPTION ***\n",
        None,
        "preemption",
        "PREEMPTED",
    ),
    "a time limit": Excerpt(
        "> slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-11-30T04:00:38 DUE TO TIME LIMIT ***\n"
        "srun: error: n1: task 0: Terminated\n",
        None,
        "time_limit",
        "TIMEOUT",
    ),
    "a failed node, taken for a preemption": Excerpt(
        "> srun: error: Node failure on n2\n"
        "slurmstepd-n1: error: *** JOB 20 ON n1 CANCELLED AT 2026-11-30T03:59:12 DUE TO "
        "NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***\n",
        "preemption",
        "node",
    ),
    "a node that starts no task": Excerpt(
        "> srun: error: Task launch for StepId=12.0 failed on node n2: Communication connection failure\n",
        "rank_failure",
        "node",
        began=False,
    ),
    # nodes
    "a broken GPU": Excerpt(
        f"{FRAMES}> torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered\n", "node_failure", "node"
    ),
    "a lost filesystem": Excerpt(f"{FRAMES}> OSError: [Errno 116] Stale file handle: 'x'\n", "node_failure", "node"),
    "a hang": Excerpt(
        f"{NOISE}> watchdog: rank 0 has been in phase step 9 for 15 s (budget 15 s); stacks follow\n"
        'Thread 0x00007fcd4fb146c0 (most recent call first):\n  File "/usr/lib/python3.11/threading.py", line 324\n'
        "watchdog: rank 0 gave no sign for 10 s more; killing it\n",
        "hang",
        "hang",
    ),
    "a hang that was none": Excerpt(
        "watchdog: rank 0 has been in phase step 9 for 400 s (budget 300 s); stacks follow\n"
        f"watchdog: rank 0 goes on: it left phase step 9\n{FRAMES}> {GLOO}\n",
        "rank_failure",
        "rank_died",
    ),
    "a hang that another rank was killed for first": Excerpt(
        "> watchdog: rank 0 has been in phase step 9 for 400 s (budget 300 s); stacks follow\n"
        'Thread 0x00007fcd4fb146c0 (most recent call first):\n  File "/usr/lib/python3.11/threading.py", line 324\n',
        "hang",
        "hang",
    ),
    "a hang of which only the end is left": Excerpt(
        '  File "/usr/lib/python3.11/threading.py", line 324\n'
        "> watchdog: rank 0 gave no sign for 10 s more; killing it\n",
        "hang",
        "hang",
    ),
    # the job's environment
    "a module that is not there": Excerpt(
        '> Lmod has detected the following error:  The following module(s) are unknown: "cuda/12.9"\n',
        None,
        "environment",
        began=False,
    ),
    "a setup in words of its own": Excerpt("loading\n> nothing like that here\n\n", None, "environment", began=False),
    "a setup line that is not found": Excerpt(
        "> /var/spool/slurmd/job00005/slurm_script: line 20: conda: command not found\n"
        "srun: error: n1: task 0: Exited with exit code 127\n",
        "code",
        "environment",
        began=False,
    ),
    "a setup file that is not there": Excerpt(
        "> /var/spool/slurmd/job00004/slurm_script: line 20: /opt/conda/bin/activate: No such file or directory\n"
        "srun: error: n1: task 0: Exited with exit code 1\n",
        "code",
        "environment",
        began=False,
    ),
    "a missing package": Excerpt(
        f"{EPILOGUE.splitlines()[0]}\n{FRAMES}> ModuleNotFoundError: No module named 'flash_attn'\n",
        "rank_failure",
        "environment",
        began=False,
    ),
    "a setup line that did not matter": Excerpt(
        "/var/spool/slurmd/job00005/slurm_script: line 19: module: command not found\n"
        "> srun: error: n2: task 1: Killed\n",
        "rank_failure",
        "rank_died",
    ),
    # nothing
    "a log that says nothing": Excerpt(
        f"{NOISE}03:57:17 starting: 2000 steps\n 50%|#####     | 5/10 [00:01<00:01,  4.12it/s]\n", None, "silent"
    ),
    "no more than the epilogue": Excerpt(f"{NOISE}{EPILOGUE}", "code", "code"),
}
