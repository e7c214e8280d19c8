"""The document of `hpcsft plan` for a terminal, from 60 columns on. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from hpcsft.estimate.memory import KEPT_FREE, PARTS

GOOD, BAD, QUIET = "green", "bold red", "dim"

Lines = Iterable[tuple[str, str | Text]]


def print_plan(document: dict[str, Any], console: Console | None = None) -> None:
    """Print what `plan_document` gave, on the standard output unless it is to be elsewhere."""
    console = console or Console()
    for part in _parts(document):
        console.print(part, markup=False, highlight=False, emoji=False)


def size(num_bytes: float) -> str:
    """A size with three digits or so: GB are 10**9 bytes."""
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6)):
        value = num_bytes / 10**power
        if unit == "MB" or value >= (1 if unit == "TB" else 0.1):
            return f"{value:,.{2 if value < 10 else 1}f} {unit}"
    raise AssertionError


def hours(value: float) -> str:
    """Hours with two digits or more."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _parts(document: dict[str, Any]) -> Iterator[RenderableType]:
    settings, model = document["settings"], document["model"]
    unit = "GPU" if settings["on_gpus"] else "process"
    yield Text(document["name"], "bold")
    yield _grid(_about(document, unit))
    yield _title(f"Memory of one {unit}", "GB are 10⁹ bytes")
    if document["memory_per_rank"]:
        yield _memory(document["memory_per_rank"], document["copy_on_first_host_bytes"])
        yield _grid(_verdicts(document))
        yield _title(f"Model states of one {unit}, GB", "by ZeRO stage, as in the ZeRO paper; without offload")
        yield _states(document["model_states"], settings)
    else:
        yield Text(f"{model['architecture']} is of another kind than Llama, and its weights tell no size: no estimate")
    yield _title("Work", document["work"]["basis"])
    yield _grid(_work(document))
    if document["disk"]:
        yield _title("Disk", document["disk"]["folder"])
        yield _grid(_disk(document["disk"]))
    for warning in document["warnings"]:
        yield Text(f"warning: {warning}", "yellow")


def _title(text: str, more: str) -> Text:
    return Text.assemble("\n", (text, "bold"), ("  " + more, QUIET))


def _grid(lines: Lines) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style=QUIET, no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(name, value)
    return table


def _about(document: dict[str, Any], unit: str) -> Lines:
    model, settings, batch = document["model"], document["settings"], document["batch"]
    parameters = f", {model['num_parameters']:,} parameters" if model["num_parameters"] else ""
    yield "model", f"{model['architecture']}{parameters}"
    if document["lora"]:
        yield "LoRA", _lora(document["lora"])
    ranks = f"{settings['nodes']} node(s) x {settings['ranks_per_node']} {unit}(s)"
    yield "training", f"{ranks}, ZeRO {settings['zero_stage']}, offload {settings['offload']}, {settings['dtype']}"
    checkpointing = "on" if settings["gradient_checkpointing"] else "off"
    rows = f"{batch['micro_batch_size']} x {settings['max_length']:,} positions"
    yield "micro batch", f"{rows}, gradient checkpointing {checkpointing}"


def _lora(lora: dict[str, Any]) -> str:
    wanted, learn, frozen = lora["target_modules"], lora["trainable_parameters"], lora["frozen_parameters"]
    layers = wanted if isinstance(wanted, str) else ", ".join(wanted)
    if learn is None:
        return f"rank {lora['rank']}, {layers}; sizes not known, memory is an upper bound: counted as if all learnt"
    kept = f" and {frozen:,} frozen" if frozen else ""
    return f"rank {lora['rank']}, {layers}: {learn:,} parameters learn{kept}"


def _memory(memory: dict[str, Any], copy_bytes: int) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style=QUIET, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style=QUIET, overflow="fold")
    notes = {"activations": "not known: the model is of another kind than Llama"}
    if memory["logits_bytes"] is not None:
        notes = {
            "loss": f"logits in chunks of {size(memory['logits_bytes'])}; "
            f"all at once they would take {size(memory['full_logits_bytes'])}"
        }
    for part, words in PARTS.items():
        value = memory[f"{part}_bytes"]
        if value or part in notes:
            shown = "?" if value is None else size(value) if value else "within"
            table.add_row(words, shown, notes.get(part, ""))
    table.add_row("together", Text(size(memory["total_bytes"]), "bold"), "the most at once")
    if memory["host_bytes"]:
        table.add_row("on the host", size(memory["host_bytes"]), "for train.offload, each rank")
    table.add_row("on rank 0's host", size(copy_bytes), "a copy of the model, to load it and for each export")
    return table


def _verdicts(document: dict[str, Any]) -> Lines:
    if not document["settings"]["on_gpus"]:
        return
    free = f"{100 * KEPT_FREE:.0f}% kept free for CUDA, NCCL and fragmentation"
    for found in document["fits"]:
        verdict = Text("fits", GOOD) if found["fits"] else Text("does not fit", BAD)
        yield f"on {found['gb']} GB", Text.assemble(verdict, (f"  {size(found['usable_bytes'])} usable, {free}", QUIET))
        free = "as above"
    for hint in document["hints"]:
        changes = ", ".join(f"{name} {str(value).lower()}" for name, value in hint["set"].items())
        yield "would fit", f"with {changes}: {size(hint['total_bytes'])}"
    own = next(found for found in document["fits"] if found["gb"] == document["gpu"]["memory_gb"])
    if not own["fits"] and not document["hints"]:
        yield "would fit", "not with any of the usual settings: it takes more nodes, or a GPU with more memory"


def _states(rows: list[dict[str, Any]], settings: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=QUIET)
    table.add_column("GPUs", justify="right", style=QUIET)
    for stage in range(4):
        table.add_column(f"ZeRO {stage}", justify="right")
    own = settings["nodes"] * settings["ranks_per_node"]
    for gpus in dict.fromkeys(row["gpus"] for row in rows):
        cells = [
            Text(
                f"{row['states_bytes'] / 1e9:,.{1 if row['states_bytes'] > 1e9 else 3}f}",
                "bold" if (gpus, row["zero_stage"]) == (own, settings["zero_stage"]) else "",
            )
            for row in rows
            if row["gpus"] == gpus
        ]
        table.add_row(str(gpus), *cells)
    return table


def _work(document: dict[str, Any]) -> Lines:
    work = document["work"]
    train, held_out = work["train"], work["validation"]
    yield "rows", f"{train['rows']:,} and {held_out['rows']:,} for validation"
    learnt = f"{100 * train['supervised_tokens'] / train['tokens']:.0f}% learnt" if train["tokens"] else "none"
    yield "tokens", f"{train['tokens']:,} an epoch, {learnt}; {work['tokens']:,} in all {work['epochs']}"
    filled = f", {100 * work['filled_share']:.0f}% filled" if work["filled_share"] is not None else ""
    whole = work["steps"] == work["epochs"] * work["steps_per_epoch"]
    how = f" = {work['epochs']} x {work['steps_per_epoch']:,}" if whole else f" of {work['steps_per_epoch']:,}"
    yield "steps", f"{work['steps']:,}{how}{filled}"
    if work["flops"]:
        yield "operations", f"{work['flops']:.2e}, without what is computed again"
    if work["gpu_hours"] is not None:
        peak = f"{work['gpu']}'s peak of {work['peak_tflops']:g} TFLOP/s"
        yield "GPU-hours", f"about {hours(work['gpu_hours'])}, assuming {100 * work['mfu']:g}% of {peak} (--mfu, --gpu)"
        time = f"{hours(work['hours'])} h" if work["hours"] >= 1 else f"{hours(60 * work['hours'])} min"
        yield "time", f"about {time}, within {work['jobs']} job(s) of the time limit"
    elif document["settings"]["on_gpus"]:
        yield "GPU-hours", "not estimated: that takes a model like Llama, and a GPU and dtype for bfloat16"
    if document["settings"]["on_gpus"]:
        yield "at most", f"{document['gpu_hours_limit']:,.1f} GPU-hours, if every job ran to its time limit once"


def _disk(disk: dict[str, Any]) -> Lines:
    yield "checkpoints", f"{size(disk['checkpoints_bytes'])} = {disk['checkpoints']} x {size(disk['checkpoint_bytes'])}"
    yield "exports", f"{size(disk['exports_bytes'])} = {disk['exports']} x {size(disk['export_bytes'])}"
    yield "shards", size(disk["shards_bytes"])
    verdict = {True: Text("fits", GOOD), False: Text("does not fit", BAD), None: Text("room not known")}[disk["fits"]]
    yield "together", Text.assemble(size(disk["total_bytes"]), ", ", verdict)
    if disk["free_bytes"] is not None:
        yield "free", f"{size(disk['free_bytes'])} on the filesystem, which may not know your quota (--quota GB)"
    if disk["quota_bytes"] is not None:
        yield "quota", size(disk["quota_bytes"])
