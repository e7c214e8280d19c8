"""The DeepSpeed configuration that a spec means. Pure: also shown by the dry run."""

from __future__ import annotations

from typing import Any

from hpcsft.spec import ExperimentSpec

NEVER_PRINT = 10**9

REDUCE_BUCKET = 500_000_000
"""DeepSpeed's own reduce_bucket_size, in parameters: set aside in every backward pass; reduced at once without ZeRO."""

UNCONVERTIBLE = {
    "round_robin_gradients": "DeepSpeed mixes up parameters when it converts states kept in round-robin order",
    "elastic_checkpoint": "DeepSpeed cannot convert states saved in the elastic layout",
}
"""Settings of `train.deepspeed.zero_optimization` with which ZeRO 1 and 2 are bound to their number of ranks."""


def deepspeed_config(
    spec: ExperimentSpec, accumulation_steps: int, on_gpu: bool, parts: int = 1, num_parameters: int | None = None
) -> dict[str, Any]:
    """The configuration for deepspeed.initialize, with `train.deepspeed` merged over what follows from the spec.

    Micro batches may be computed in `parts`, each as DeepSpeed's micro batch: see `train/micro_batch.py`. If less than
    REDUCE_BUCKET parameters learn (`num_parameters` do), the bucket is no larger than they are.
    """
    train = spec.train
    optimizer: dict[str, Any] = {
        "lr": train.learning_rate,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "weight_decay": train.weight_decay,
        "torch_adam": True,  # DeepSpeed's own would be compiled on the node at the first start
    }
    if train.master_weights:  # without them it is the reference project's optimizer, rounding after every operation
        optimizer["fused"] = True
    micro_batch_size = max(1, train.micro_batch_size // parts)
    world_size = train.global_batch_size // (train.micro_batch_size * accumulation_steps)
    zero: dict[str, Any] = {"stage": train.zero_stage}
    if num_parameters and num_parameters < REDUCE_BUCKET:
        zero["reduce_bucket_size"] = num_parameters
    if train.offload in ("optimizer", "all"):
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    if train.offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": on_gpu}
    bf16: dict[str, Any] = {"enabled": spec.model.dtype == "bfloat16"}
    if not train.master_weights:
        bf16 |= {"bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}
    config: dict[str, Any] = {
        "train_batch_size": micro_batch_size * accumulation_steps * parts * world_size,
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps * parts,
        "gradient_clipping": train.max_grad_norm,
        "optimizer": {"type": "AdamW", "params": optimizer},
        "bf16": bf16,
        "zero_optimization": zero,
        "steps_per_print": NEVER_PRINT,
        "timers": {"throughput": {"enabled": False}},  # it would wait for the GPU in every step
    }
    if train.offload != "none":
        config["zero_force_ds_cpu_optimizer"] = False
    return merge(config, train.deepspeed)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, section by section; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def why_impossible(spec: ExperimentSpec) -> str | None:
    """Why a run of this spec cannot go on with another number of ranks; None if it can."""
    zero = spec.train.deepspeed.get("zero_optimization", {})
    if spec.train.zero_stage in (1, 2):
        for key, reason in UNCONVERTIBLE.items():
            if zero.get(key):
                return f"{reason} (train.deepspeed.zero_optimization.{key})"
    return None
