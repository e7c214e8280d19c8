"""What hpcsft can promise on a cluster, in plain sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from hpcsft.records import Record
from hpcsft.site.preemption import Preemption, preemption
from hpcsft.site.records import Site
from hpcsft.slurm_client import duration_text


class Promise(Record):
    """One sentence about what a run may count on, or may not."""

    holds: bool
    """False: this cluster does not allow it, or not as one would wish."""
    text: str


def promises(site: Site) -> list[Promise]:
    """What a run may count on at this cluster."""
    return [*_time_limit(), *_preemptions(site), *_without_notice(), *_explanations(site), *_arrays(site)]


def local_promises() -> list[Promise]:
    """What a run may count on where there is no Slurm."""
    return [
        Promise(
            holds=True,
            text="All stages run on this machine, in the background, with its GPUs or on its CPUs; they go on when "
            "you log out.",
        ),
        Promise(
            holds=True,
            text="A rank that is killed, hangs or runs out of memory starts again from the newest checkpoint, within "
            "the same limits as on a cluster.",
        ),
        Promise(
            holds=True,
            text="submit.py --dry-run shows the DeepSpeed configuration, the batch arithmetic and the estimates of a "
            "spec; where the Slurm commands are, the batch scripts too.",
        ),
        Promise(holds=False, text="Training takes one node here, and nothing starts it again after a reboot."),
    ]


def _time_limit() -> Iterator[Promise]:
    yield Promise(
        holds=True,
        text="The end of a time limit loses no step: training watches the clock, finishes the step in progress, saves "
        "and goes back into the queue, as often as cluster.retries.timeout says.",
    )


def _preemptions(site: Site) -> Iterator[Promise]:
    safe: list[str] = []
    for found, names in grouped(site).items():
        if found is None:
            safe = names
        else:
            yield _preempted(found, ", ".join(names))
    if safe and len(safe) == len(site.partitions):
        yield Promise(holds=True, text="Nothing preempts jobs on this cluster.")
    elif safe:
        yield Promise(holds=True, text=f"Nothing preempts jobs in {', '.join(safe)}.")


def grouped(site: Site) -> dict[Preemption | None, list[str]]:
    """What a preemption does, with the names of partitions in which it does so, or of QOS where those decide.

    None: nothing preempts.
    """
    found: dict[Preemption | None, list[str]] = {}
    if site.preempt_type == "qos" and site.accounts and site.partitions:
        usable = {name for own in site.accounts.associations for name in own.qos}
        for qos in site.accounts.qos:
            if not usable or qos.name in usable:
                by = preemption(site, site.partitions[0], qos.name)
                found.setdefault(by._replace(by="") if by else None, []).append(f"QOS {qos.name}")
    else:
        for partition in site.partitions:
            by = preemption(site, partition)
            found.setdefault(by._replace(by="") if by else None, []).append(partition.name)
    return found


def _preempted(found: Preemption, names: str) -> Promise:
    if found.mode == "SUSPEND":
        text = f"A preempted job in {names} is suspended, and goes on where it was: nothing is lost, it takes longer."
        return Promise(holds=True, text=text)
    start = f"A preempted job in {names} has {found.notice_s} s between the first signal and the kill"
    if found.mode == "REQUEUE":
        text = (
            f"{start}: training that saves in that time loses no step, else those since its last checkpoint; either "
            "way it goes back into the queue."
        )
        return Promise(holds=True, text=text)
    text = (
        f"{start}: training that saves in that time loses no step and goes back into the queue, else the job is "
        "cancelled for good, and resume.py goes on from its last checkpoint."
    )
    return Promise(holds=False, text=text)


def _without_notice() -> Iterator[Promise]:
    yield Promise(
        holds=True,
        text="A node that fails or a rank that is killed costs at most the steps since the last checkpoint; the job "
        "goes back into the queue by itself. Jobs ask for that, whatever JobRequeue says.",
    )


def _explanations(site: Site) -> Iterator[Promise]:
    if site.accounts:
        text = "How a job ended that left no word is looked up in Slurm's accounts (sacct)."
        yield Promise(holds=True, text=text)
        return
    after = duration_text(site.forgets_after_s) if site.forgets_after_s is not None else "some minutes"
    yield Promise(
        holds=False,
        text=f"No accounts tell how a job ended ({site.accounts_problem or 'they do not answer'}): {after} after its "
        "end Slurm forgets a job, and then only the run directory explains it.",
    )


def _arrays(site: Site) -> Iterator[Promise]:
    if site.max_array_size is None:
        return
    largest = site.max_array_size
    if largest < 2:
        yield Promise(holds=False, text="This cluster takes no job arrays: give every stage one task or shard.")
    else:
        text = f"A stage may be an array of up to {largest:,} tasks: cluster.preprocess.tasks, evaluate.shards."
        yield Promise(holds=True, text=text)
