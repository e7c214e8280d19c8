"""What a submission would do, without doing it: arithmetic, estimates, DeepSpeed's JSON and every batch script."""

from __future__ import annotations

import json
from typing import Any

from hpcsft.cluster import slurm
from hpcsft.cluster.environment import environment_text
from hpcsft.estimate import gpu_hours_limit
from hpcsft.estimate.memory import GB, PARTS, rank_memory
from hpcsft.estimate.states import trainable_parameters
from hpcsft.evaluate.judges.cost import estimate_before
from hpcsft.evaluate.prompts import load_prompts
from hpcsft.inputs import InputFacts
from hpcsft.plan import Plan, StagePlan
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.data import JINJA_ENDINGS
from hpcsft.train.deepspeed_config import deepspeed_config


def dry_run(spec: ExperimentSpec, plan: Plan, facts: InputFacts, kind: str, stages: list[str]) -> dict[str, Any]:
    """The document of `submit --dry-run --json`."""
    train, template = plan.stage("train"), spec.data.template
    run = RunDir(spec.run_path)
    memory = None
    size, shape = facts.model.num_parameters, facts.model.shape
    if size:
        memory = rank_memory(spec, train.world_size, size, shape).document()
    return {
        "run_dir": str(run.path),
        "cluster": kind,
        "environment": environment_text(spec),
        "inputs": facts.model_dump(),
        "batch": plan.batch.model_dump(),
        "memory_per_rank": memory,
        "gpu_hours_limit": gpu_hours_limit(plan),
        "deepspeed": deepspeed_config(
            spec,
            plan.batch.accumulation_steps,
            on_gpu=train.gpus_per_node > 0,
            num_parameters=trainable_parameters(spec, size, shape) if size else None,
        ),
        "judge": _judge_cost(spec) if "judge" in stages else None,
        "untried_template": template if template == "tokenizer" or template.endswith(JINJA_ENDINGS) else None,
        "warnings": plan.warnings + facts.warnings,
        "stages": [_stage(spec, run, plan.stage(name), kind) for name in stages],
    }


def _judge_cost(spec: ExperimentSpec) -> dict[str, Any] | None:
    """What an endpoint will be asked for at most, every answer as long as it may become; None for a local judge."""
    settings = spec.evaluate.judge
    if settings.kind == "local":
        return None
    prompts, longest = load_prompts(spec.evaluate.prompts), spec.evaluate.generation.max_new_tokens
    return estimate_before(settings, prompts, len(spec.judged_names()), longest)._asdict()


def _stage(spec: ExperimentSpec, run: RunDir, stage: StagePlan, kind: str) -> dict[str, Any]:
    after = [f"<{name}>" for name in stage.depends_on]
    script = slurm.render_script(spec, run, stage, after) if kind == "slurm" else None
    return {"stage": stage.name, "depends_on": stage.depends_on, "tasks": stage.tasks, "sbatch": script}


def dry_run_text(document: dict[str, Any]) -> str:
    """The same for people."""
    batch, inputs, memory = document["batch"], document["inputs"], document["memory_per_rank"]
    model = inputs["model"]
    size = f", {model['num_parameters'] / 1e6:,.0f} M parameters" if model["num_parameters"] else ""
    lines = [
        f"run directory    {document['run_dir']} (nothing is written now)",
        f"cluster          {document['cluster']}",
        f"environment      {document['environment']}",
        f"model            {model['architecture']}{size}",
        f"data             {len(inputs['data_files'])} file(s), {inputs['data_bytes'] / 1e6:,.1f} MB",
        f"prompts          {inputs['num_prompts']}",
        f"global batch     {batch['global_batch_size']} = {batch['world_size']} ranks "
        f"x {batch['micro_batch_size']} rows x {batch['accumulation_steps']} accumulation steps",
        f"tokens per step  at most {batch['tokens_per_step']:,}",
    ]
    if memory:
        more = "" if memory["activations_bytes"] is not None else ", and activations on top"
        lines.append(f"memory per rank  about {memory['total_bytes'] / GB:.2f} GB{more}")
        lines += [
            f"                 {memory[f'{part}_bytes'] / GB:8.2f} {words}"
            for part, words in PARTS.items()
            if memory[f"{part}_bytes"]
        ]
        lines.append(f"a checkpoint     {memory['checkpoint_bytes'] / GB:.2f} GB")
    lines.append(f"GPU-hours        at most {document['gpu_hours_limit']:,.1f}, if every job ran to its time limit")
    if judge := document["judge"]:
        usd = (
            f", {judge['usd']:,.2f} US dollars"
            if judge["usd"] is not None
            else "; evaluate.judge.price would tell dollars"
        )
        lines.append(
            f"judge            at most {judge['num_requests']:,} questions of {judge['input_tokens']:,} tokens{usd}"
        )
    if document["untried_template"]:
        lines.append("chat template    in Jinja, not tried here: hpcsft preview SPEC.json does, on the first rows")
    lines += [f"warning: {warning}" for warning in document["warnings"]]
    lines.append("not looked at   what this cluster and machine allow: hpcsft doctor SPEC.json does")
    lines += ["", "DeepSpeed configuration", json.dumps(document["deepspeed"], indent=2)]
    for stage in document["stages"]:
        after = f" after {', '.join(stage['depends_on'])}" if stage["depends_on"] else ""
        array = f", array of {stage['tasks']}" if stage["tasks"] > 1 else ""
        lines += ["", f"== {stage['stage']}{after}{array}"]
        lines.append(
            stage["sbatch"] or f"python jobs/{stage['stage']}.py RUN_DIR, started by the driver on this machine"
        )
    return "\n".join(lines)
