"""The whole spec, and the rules that span sections."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator

from pydantic import NonNegativeInt, model_validator

from hpcsft.hub.names import is_hub_name, model_name_or_path
from hpcsft.spec.base import Name, ScriptPath, Section
from hpcsft.spec.benchmark import BenchmarkSpec
from hpcsft.spec.cluster import ClusterSpec
from hpcsft.spec.data import TEMPLATES, DataSpec
from hpcsft.spec.evaluate import EvaluateSpec
from hpcsft.spec.model import ModelSpec
from hpcsft.spec.notify import NotifySpec
from hpcsft.spec.train import TrainSpec


class ExperimentSpec(Section):
    """One experiment: a model, its data, its training, its evaluation and where they run."""

    name: Name = "run"
    """Name of the run; part of its directory and of its job names."""

    runs_dir: ScriptPath = "runs"
    """Folder on the shared filesystem in which run directories are made."""

    seed: NonNegativeInt = 42
    """Seed of sampling, splits, order and dropout."""

    model: ModelSpec
    """The model to fine-tune."""

    data: DataSpec
    """Conversations and how they become supervised tokens."""

    train: TrainSpec = TrainSpec()
    """Optimization and its distribution over ranks."""

    evaluate: EvaluateSpec | None = None
    """Answers to held-out prompts, compared with reference answers; null for none."""

    benchmark: BenchmarkSpec | None = None
    """Tasks of lm-evaluation-harness on the checkpoints; null for none."""

    cluster: ClusterSpec = ClusterSpec()
    """Where the jobs run."""

    notify: NotifySpec | None = None
    """Who is told when a run ends or waits for a person; null for nobody. It is no part of the experiment."""

    @model_validator(mode="after")
    def _sections_fit(self) -> ExperimentSpec:
        problems = [
            *self._missing_checkpoints(),
            *self._unfit_offload(),
            *self._unfit_master_weights(),
            *self._unfit_reference(),
            *self._unfit_export(),
            *self._unfit_judge(),
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _unfit_export(self) -> Iterator[str]:
        lora = self.model.lora
        if lora and lora.export == "adapter" and self.model.export == "llama":
            yield 'model.export: "llama" writes a whole model; with it model.lora.export has to be "merged"'

    def _unfit_judge(self) -> Iterator[str]:
        if self.evaluate and self.evaluate.judge.kind == "local":
            try:
                model_name_or_path(self.evaluate.judge.model)
            except ValueError as error:
                yield f"evaluate.judge.model: {error}; given '{self.evaluate.judge.model}'"

    def _missing_checkpoints(self) -> Iterator[str]:
        allowed = self.all_checkpoints()
        for where, section in (("evaluate", self.evaluate), ("benchmark", self.benchmark)):
            for name in section.checkpoints if section and section.checkpoints != "all" else ():
                if name not in allowed:
                    yield f"{where}.checkpoints: no checkpoint '{name}'; there will be {', '.join(allowed)}"
        for name in self.evaluate.outputs if self.evaluate else ():
            if name in allowed:
                yield f"evaluate.outputs: '{name}' is a checkpoint of this run; give the other model another name"

    def _unfit_offload(self) -> Iterator[str]:
        if self.train.offload == "all" and self.train.zero_stage != 3:
            yield "train.offload: 'all' needs zero_stage 3; 'optimizer' works with 1, 2 and 3"
        if self.train.offload == "optimizer" and self.train.zero_stage == 0:
            yield "train.offload: 'optimizer' needs zero_stage 1, 2 or 3"

    def _unfit_master_weights(self) -> Iterator[str]:
        if self.train.master_weights:
            return
        if self.model.dtype != "bfloat16":
            yield "train.master_weights: false is for model.dtype bfloat16; float32 weights are their own masters"
        if self.train.zero_stage == 0 or self.train.offload != "none":
            yield "train.master_weights: false needs zero_stage 1, 2 or 3 and offload none"

    def _unfit_reference(self) -> Iterator[str]:
        wanted = {"template": "user_assistant", "mask": "all_turns"}
        if self.data.overlong == "split_reference":
            for name, value in wanted.items():
                if (given := getattr(self.data, name)) != value:
                    yield f"data.{name}: must be '{value}' with overlong split_reference; given '{given}'"

    def all_checkpoints(self) -> list[str]:
        """base, epoch-1, epoch-2, ..."""
        return ["base"] + [f"epoch-{epoch}" for epoch in range(1, self.train.epochs + 1)]

    def evaluated_checkpoints(self) -> list[str]:
        """The checkpoints that are evaluated, in the order of training."""
        return self._chosen(self.evaluate)

    def benchmarked_checkpoints(self) -> list[str]:
        """The checkpoints that are benchmarked, in the order of training."""
        return self._chosen(self.benchmark)

    def _chosen(self, section: EvaluateSpec | BenchmarkSpec | None) -> list[str]:
        wanted = section.checkpoints if section else []
        return [name for name in self.all_checkpoints() if wanted == "all" or name in wanted]

    def secret_variables(self) -> list[str]:
        """Environment variables whose values are secrets of this run: the judge's key, the webhook's address."""
        judge = self.evaluate.judge if self.evaluate else None
        names = [judge.key_variable] if judge and judge.kind != "local" and not judge.api_key_file else []
        webhook = self.notify.webhook_variable if self.notify else None
        return [*names, *([webhook] if webhook else [])]

    def judged_names(self) -> list[str]:
        """The evaluated checkpoints, and the other models that are judged alike."""
        return self.evaluated_checkpoints() + (list(self.evaluate.outputs) if self.evaluate else [])

    def absolute(self) -> ExperimentSpec:
        """The same spec with every local path made absolute; names on the hub stay."""
        spec = self.model_dump(mode="json")
        spec["runs_dir"] = _absolute(self.runs_dir)
        spec["model"]["path"] = _absolute(self.model.path)
        spec["data"]["train"] = [_absolute(path) for path in self.data.train]
        if isinstance(self.data.validation, list):
            spec["data"]["validation"] = [_absolute(path) for path in self.data.validation]
        if self.data.template not in TEMPLATES:
            spec["data"]["template"] = _absolute(self.data.template)
        if self.evaluate:
            spec["evaluate"]["prompts"] = _absolute(self.evaluate.prompts)
            spec["evaluate"]["outputs"] = {name: _absolute(path) for name, path in self.evaluate.outputs.items()}
            spec["evaluate"]["leaderboards"] = [_absolute(path) for path in self.evaluate.leaderboards]
            judge = spec["evaluate"]["judge"]
            for field in ("template", "evaluator", "api_key_file", *(["model"] if judge["kind"] == "local" else [])):
                judge[field] = judge[field] and _absolute(judge[field])
        if self.benchmark and self.benchmark.include_path:
            spec["benchmark"]["include_path"] = _absolute(self.benchmark.include_path)
        if self.notify and self.notify.command and "/" in self.notify.command[0]:
            spec["notify"]["command"][0] = _absolute(self.notify.command[0])
        cluster, container = spec["cluster"], self.cluster.container
        for field in ("venv", "conda"):
            cluster[field] = cluster[field] and _absolute(cluster[field])
        if container:
            cluster["container"]["mounts"] = [_absolute_source(mount) for mount in container.mounts]
            if container.image_is_file:
                cluster["container"]["image"] = _absolute(container.image)
        return ExperimentSpec.model_validate(spec)

    def digest(self) -> str:
        """Eight hexadecimal digits that name this spec, whoever is told: the same spec, the same run directory.

        What is at its default is left out, so that a version with further fields finds the runs of this one.
        """
        values = self.model_dump(mode="json", exclude={"notify"}, exclude_defaults=True)
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:8]

    @property
    def run_path(self) -> str:
        """RUNS_DIR/NAME-HASH8."""
        return os.path.join(self.runs_dir, f"{self.name}-{self.digest()}")


def _absolute(path: str) -> str:
    return path if is_hub_name(path) else os.path.abspath(os.path.expanduser(path))


def _absolute_source(mount: str) -> str:
    """SOURCE[:TARGET[:ro]] with its source made absolute."""
    source, colon, target = mount.partition(":")
    return f"{_absolute(source)}{colon}{target}"
