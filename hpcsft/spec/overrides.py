"""Which DeepSpeed settings `train.deepspeed` may hold: none that the spec decides, and none that is only misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

OWNED_BY_SPEC = {
    "train_batch_size": "train.global_batch_size",
    "train_micro_batch_size_per_gpu": "train.micro_batch_size",
    "gradient_accumulation_steps": "train.global_batch_size",
    "gradient_clipping": "train.max_grad_norm",
    "optimizer": "train.optimizer",
    "scheduler": "train.scheduler",
    "bf16": "model.dtype",
    "bfloat16": "model.dtype",
    "fp16": "model.dtype",
    "amp": "model.dtype",
    "torch_autocast": "model.dtype",
    "data_types": "model.dtype",
    "activation_checkpointing": "model.gradient_checkpointing",
    "checkpoint": "train.checkpoint",
    "tensorboard": "train.trackers",
    "wandb": "train.trackers",
    "curriculum_learning": "data",
    "data_efficiency": "data",
    "zero_optimization.stage": "train.zero_stage",
    "zero_optimization.offload_optimizer": "train.offload",
    "zero_optimization.offload_param": "train.offload",
    "zero_optimization.cpu_offload": "train.offload",
}
"""DeepSpeed keys that the spec decides, and where."""

REFUSED = {
    "autotuning": "it starts trials of its own",
    "compression_training": "the model would be another one",
    "elasticity": "resume.py goes on with another number of ranks",
    "progressive_layer_drop": "the model would be another one",
    "sequence_parallel_size": "every rank computes whole rows",
    "sparse_gradients": "every parameter has a whole gradient",
    "tensor_parallel": "every rank computes whole rows",
    "gradient_allreduce_op": "gradients are averaged over the supervised tokens of the global batch",
    "managed_gradient_accumulation": "accumulation follows from train.global_batch_size",
    "zero_optimization.ignore_unused_parameters": "every parameter has a gradient in every step",
}
"""DeepSpeed keys that would change what a step means, and why."""

ZERO_3 = (
    "gather_16bit_weights_on_model_save",
    "max_live_parameters",
    "max_reuse_distance",
    "model_persistence_threshold",
    "module_granularity_threshold",
    "param_persistence_threshold",
    "prefetch_bucket_size",
    "use_all_reduce_for_fetch_params",
    "allgather_sequential",
)
"""Keys of zero_optimization that only ZeRO 3 knows, also with stage3_ before them."""

KNOWN = (
    *(f"zero_optimization.{prefix}{key}" for key in ZERO_3 for prefix in ("", "stage3_")),
    *(
        f"zero_optimization.{key}"
        for key in (
            "allgather_bucket_size",
            "allgather_partitions",
            "contiguous_gradients",
            "elastic_checkpoint",
            "log_trace_cache_warnings",
            "memory_efficient_linear",
            "overlap_comm",
            "reduce_bucket_size",
            "reduce_scatter",
            "round_robin_gradients",
            "sub_group_size",
            "use_multi_rank_bucket_allreduce",
            "zero_hpz_partition_size",
            "zero_quantized_gradients",
            "zero_quantized_nontrainable_weights",
            "zero_quantized_weights",
        )
    ),
    "comms_logger",
    "communication_data_type",
    "compile",
    "csv_monitor",
    "disable_python_gc",
    "dump_state",
    "flops_profiler",
    "gradient_predivide_factor",
    "memory_breakdown",
    "prescale_gradients",
    "steps_per_print",
    "timers",
    "wall_clock_breakdown",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
    "zero_optimization",
)
"""DeepSpeed 0.19's keys that may be given. Others pass, unless they look like one of these: versions differ."""


def find_problems(deepspeed: Mapping[str, Any], zero_stage: int | None) -> Iterator[str]:
    """What is wrong with `train.deepspeed`, one line each. `zero_stage` is None where it is wrong itself."""
    zero = deepspeed.get("zero_optimization", {})
    if not isinstance(zero, dict):
        yield "zero_optimization must be an object"
        return
    for key in (*deepspeed, *(f"zero_optimization.{key}" for key in zero)):
        if key in OWNED_BY_SPEC:
            yield f"{key} is decided by {OWNED_BY_SPEC[key]}; set it there"
        elif key in REFUSED:
            yield f"{key} may not be given: {REFUSED[key]}"
        elif key not in KNOWN and (close := difflib.get_close_matches(key, KNOWN, n=1, cutoff=0.85)):
            yield f"{key}: DeepSpeed has no such key; did you mean {close[0]}?"
        elif key.rpartition(".")[2].removeprefix("stage3_") in ZERO_3 and zero_stage not in (3, None):
            yield f"{key} has no effect with train.zero_stage {zero_stage}, only with 3"
