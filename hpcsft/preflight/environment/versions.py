"""Has the Python environment of the jobs what the spec asks for?"""

from __future__ import annotations

import configparser
import os
from collections.abc import Collection, Iterator, Mapping

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from hpcsft.cluster.snapshot import source_root
from hpcsft.plan import Plan
from hpcsft.preflight.environment.packages import Environment
from hpcsft.preflight.fields import field_of
from hpcsft.preflight.finding import Finding
from hpcsft.shell import command
from hpcsft.spec import ExperimentSpec

TOOLCHAIN = ("cuda", "cudnn", "nccl", "gcc", "rocm", "openmpi", "ucx", "libfabric", "ninja", "slurm", "apptainer")
"""What the names of modules begin with that bring no Python packages."""


def requirements() -> tuple[str, dict[str, list[Requirement]]]:
    """What setup.cfg asks for: Python's versions, and packages by extra; those that all need under ""."""
    parser = configparser.ConfigParser()
    parser.read(source_root() / "setup.cfg", encoding="utf-8")
    listed = {"": parser.get("options", "install_requires", fallback="")}
    if parser.has_section("options.extras_require"):
        listed.update(parser["options.extras_require"])
    packages = {
        name: [Requirement(line) for line in text.splitlines() if line.strip()] for name, text in listed.items()
    }
    return parser.get("options", "python_requires", fallback=""), packages


def extras_of(spec: ExperimentSpec, stages: Collection[str]) -> dict[str, tuple[str, str]]:
    """Extra -> the stage that needs it and the field that asks for it. A judge's package is looked for by inputs.py."""
    found: dict[str, tuple[str, str]] = {}
    if spec.model.lora:
        found["lora"] = ("train", "model.lora")
    if spec.benchmark:
        found["lm-eval"] = ("benchmark", "benchmark")
    found.update({tracker: ("train", "train.trackers") for tracker in spec.train.trackers})
    return {extra: (stage, where) for extra, (stage, where) in found.items() if stage in stages}


def environment_findings(
    spec: ExperimentSpec, plan: Plan, stages: Collection[str], environment: Environment | None
) -> Iterator[Finding]:
    """What is missing or of the wrong version or build. None: a container, of which only that is said."""
    if environment is None:
        message = "what is installed in the image was not looked at: it is known when the first job starts"
        hint = "a smoke run tells: submit --smoke"
        yield Finding(level="note", where="cluster.container", message=message, hint=hint)
        return
    where = next((f"cluster.{name}" for name in ("venv", "conda") if getattr(spec.cluster, name)), "python")
    python, packages = requirements()
    if environment.python and not _within(SpecifierSet(python), environment.python):
        message = f"{environment.prefix}: Python {environment.python}, and hpcsft needs {python}"
        yield Finding(level="error", where=where, message=message, hint="make it with a newer Python", forcible=True)
    brought = _may_bring_packages(spec)
    yield from package_findings(where, environment, packages[""], brought)
    for extra, (_, field) in extras_of(spec, stages).items():
        yield from package_findings(field, environment, packages.get(extra, []), brought)
    yield from _gpu_build(spec, plan, stages, where, environment)
    yield from _attention(spec, plan, stages, environment)


def package_findings(
    where: str, environment: Environment, wanted: Collection[Requirement], brought: bool = False
) -> Iterator[Finding]:
    """Packages that are missing, which is the end of every job, or out of the range that hpcsft was tried with.

    The job may find others, by its setup, its modules, its PYTHONPATH: it is a warning where there are any (`brought`),
    and an error that the user may overrule where there are none.
    """
    missing: list[Requirement] = []
    others: list[Requirement] = []
    for requirement in wanted:
        version = environment.versions.get(canonicalize_name(requirement.name))
        if version is None:
            missing.append(requirement)
        elif not _within(requirement.specifier, version):
            others.append(requirement)
    install = [f"{environment.prefix}/bin/python", "-m", "pip", "install"]
    if missing:
        names = ", ".join(requirement.name for requirement in missing)
        message, hint = f"not installed in {environment.prefix}: {names}", command([*install, *missing])
        if brought:
            message += "; every job fails unless its modules, setup or PYTHONPATH bring that"
            yield Finding(level="warning", where=where, message=message, hint=f"if they do not: {hint}")
        else:
            yield Finding(level="error", where=where, message=message, hint=hint, forcible=True)
    if others:
        names = ", ".join(f"{r.name} {environment.versions[canonicalize_name(r.name)]}" for r in others)
        message = f"versions in {environment.prefix} that hpcsft was not made for: {names}"
        yield Finding(level="warning", where=where, message=message, hint=command([*install, *others]))


def _may_bring_packages(spec: ExperimentSpec) -> bool:
    """May the job find packages that are not in its environment?"""
    modules = [name for name in spec.cluster.modules if not name.lower().startswith(TOOLCHAIN)]
    return bool(modules or spec.cluster.setup or {**os.environ, **spec.cluster.env}.get("PYTHONPATH"))


def _within(wanted: SpecifierSet, version: str) -> bool:
    """Is a version in the range? A site's own build, as 2.6.0a0+ecf3bae, counts as 2.6.0; an odd name as fitting."""
    try:
        return wanted.contains(Version(version).base_version, prereleases=True)
    except InvalidVersion:
        return True


def _gpu_build(
    spec: ExperimentSpec, plan: Plan, stages: Collection[str], where: str, environment: Environment
) -> Iterator[Finding]:
    """A torch that was built for CPUs sees no GPU, however many the job is given."""
    with_gpus = [plan.stage(name) for name in stages if plan.stage(name).gpus_per_node]
    if with_gpus and environment.torch_is_cpu_build:
        asked = ", ".join(dict.fromkeys(field_of(spec, stage.name, "gpus_per_node") for stage in with_gpus))
        torch = environment.versions.get("torch", "")
        message = f"torch {torch} in {environment.prefix} is built for CPUs, and GPUs are asked for ({asked})"
        hint = "install a build for CUDA (pytorch.org tells how), or name an environment that has one in cluster.venv"
        level = "warning" if _may_bring_packages(spec) else "error"
        yield Finding(level=level, where=where, message=message, hint=hint, forcible=level == "error")


def _attention(
    spec: ExperimentSpec, plan: Plan, stages: Collection[str], environment: Environment
) -> Iterator[Finding]:
    if spec.model.attention != "flash_attention_2" or not {"train", "generate"} & set(stages):
        return
    if not plan.stage("train").gpus_per_node:
        message = "flash_attention_2 computes on GPUs only, and training asks for none"
        yield Finding(level="error", where="model.attention", message=message, hint='use "auto" or "sdpa"')
    elif "flash-attn" not in environment.versions:
        message = f"flash_attention_2 is asked for, and flash-attn is not installed in {environment.prefix}"
        hint = 'install flash-attn there, or use "auto", which does without it'
        yield Finding(level="error", where="model.attention", message=message, hint=hint, forcible=True)


def versions_text(shown: Mapping[str, str | None]) -> str:
    """Versions in one line, for people; what is missing is left out.

    >>> versions_text({"python": "3.11.2", "torch": "2.6.0", "nccl": None})
    'python 3.11.2, torch 2.6.0'
    """
    return ", ".join(f"{name} {version}" for name, version in shown.items() if version)
