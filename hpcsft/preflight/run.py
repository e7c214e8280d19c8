"""All checks of a spec against this cluster and this machine, before anything is queued."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from hpcsft.cluster.mounts import inputs_of
from hpcsft.errors import ClusterError, PreflightError
from hpcsft.estimate import checkpoint_bytes
from hpcsft.estimate.lead import SAVE_BYTES_PER_S
from hpcsft.hub.names import is_hub_name
from hpcsft.inputs import InputFacts
from hpcsft.plan import Plan
from hpcsft.preflight.context import context_findings, read_config
from hpcsft.preflight.earlier import measured_save_s
from hpcsft.preflight.environment.interpreter import interpreter_findings
from hpcsft.preflight.environment.packages import environment_of
from hpcsft.preflight.environment.versions import environment_findings
from hpcsft.preflight.finding import Finding
from hpcsft.preflight.resources.limits import count_findings, limit_findings, partitions_of
from hpcsft.preflight.resources.memory import memory_findings
from hpcsft.preflight.resources.nodes import nodes_away
from hpcsft.preflight.resources.notice import notice_findings
from hpcsft.preflight.resources.placement import placement_findings
from hpcsft.preflight.shell_variables import ignored_variables
from hpcsft.preflight.storage.filesystems import Mount, read_mounts, sharing_findings
from hpcsft.preflight.storage.room import storage_findings
from hpcsft.preflight.trial import Verdict, estimates, refusals, try_stages
from hpcsft.preflight.verdicts import explained
from hpcsft.site.read import NO_ACCOUNTS, PRIVATE, read_site
from hpcsft.site.records import Site
from hpcsft.slurm_client import run_client
from hpcsft.spec import ExperimentSpec

LEVELS = ("error", "warning", "note")


def preflight(
    spec: ExperimentSpec,
    plan: Plan,
    facts: InputFacts,
    kind: str,
    stages: Collection[str],
    site: Site | None = None,
) -> list[Finding]:
    """What stands against submitting `stages` of `spec`, and what is good to know: errors first, then warnings, notes.

    `kind` is slurm or local; `site` is the cluster where that is known already. Asks Slurm, writes a small file to
    runs_dir (or the nearest folder that exists) and to the home directory, and submits nothing. ClusterError if Slurm
    does not answer. Any other check that cannot run becomes a note.
    """
    names = [name for name in plan.stage_names if name in stages]
    mounts = read_mounts()
    found = _attempt("environment", lambda: interpreter_findings(spec, kind))
    if not any(finding.level == "error" for finding in found):
        found += _attempt("packages", lambda: environment_findings(spec, plan, names, environment_of(spec)))
    found += _attempt("model.path", lambda: context_findings(spec, read_config(spec.model.path)))
    with ThreadPoolExecutor(2) as pool:
        storage = pool.submit(_attempt, "storage", lambda: storage_findings(spec, plan, facts, mounts))
        if kind == "slurm":
            found += _attempt("environment", lambda: ignored_variables(spec, os.environ))
            found += _on_slurm(spec, plan, facts, names, mounts, site)
        elif "train" in names:
            host_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
            found += _attempt("memory", lambda: memory_findings(spec, plan, facts, None, host_gb))
        found += storage.result()
    return sorted(merged(found), key=lambda finding: LEVELS.index(finding.level))


def _on_slurm(
    spec: ExperimentSpec, plan: Plan, facts: InputFacts, names: list[str], mounts: Sequence[Mount], known: Site | None
) -> list[Finding]:
    site = known or read_site()
    with ThreadPoolExecutor(1) as pool:
        hosts = pool.submit(node_hosts)
        verdicts = try_stages(spec, plan, names)
    plan = routed(plan, verdicts)
    found: list[Finding] = []
    unexplained: list[Verdict] = []
    for verdict in verdicts:
        stage = plan.stage(verdict.stage)
        limits = _attempt("limits", partial(limit_findings, spec, stage, site, verdict.accepted))
        away = any(nodes_away(stage, partition) for partition in partitions_of(stage, site))
        told = explained(verdict, limits, away)
        found += limits if told is None else told
        unexplained += [verdict] if told is None else []
    counted = _attempt("limits", lambda: count_findings(plan, names, site))
    found += [*counted, *refusals(spec, [v for v in unexplained if not (counted and v.too_many)])]
    found += _attempt("placement", lambda: placement_findings(spec, plan, facts, site, names))
    if "train" in names:
        found += _attempt("memory", lambda: memory_findings(spec, plan, facts, site))
        found += _attempt("preemption", lambda: notice_findings(plan, site, *save_time(spec, plan, facts)))
    if any(not is_this_host(host) for host in hosts.result()):
        found += _attempt("filesystems", lambda: sharing_findings(paths_of(spec), mounts))
    if site.accounts_problem not in (None, NO_ACCOUNTS):
        message = f"accounts and QOS could not be checked: {site.accounts_problem}"
        found.append(Finding(level="note", where="cluster.account", message=message))
    return found + estimates(verdicts, plan)


def routed(plan: Plan, verdicts: Iterable[Verdict]) -> Plan:
    """The plan with the partition that Slurm has chosen where the spec names none: often a plugin of the site does."""
    chosen = {verdict.stage: verdict.partition for verdict in verdicts if verdict.partition}
    stages = [
        stage if stage.partition else stage.model_copy(update={"partition": chosen.get(stage.name)})
        for stage in plan.stages
    ]
    return plan.model_copy(update={"stages": stages})


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Each sentence once, with all the fields that it is about: several stages are often wrong in the same way."""
    wheres: dict[tuple[str, str, str | None, bool], dict[str, None]] = {}
    for found in findings:
        wheres.setdefault((found.level, found.message, found.hint, found.forcible), {}).setdefault(found.where)
    return [
        Finding.model_validate(
            {"level": level, "where": ", ".join(places), "message": message, "hint": hint, "forcible": forcible}
        )
        for (level, message, hint, forcible), places in wheres.items()
    ]


def _attempt(what: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a check finds. It stands in nobody's way by a mistake of its own: then that is all it says."""
    try:
        return list(check())
    except ClusterError:
        raise
    except Exception as error:
        message = f"this could not be checked: {type(error).__name__}: {error}"
        return [Finding(level="note", where=what, message=message)]


def save_time(spec: ExperimentSpec, plan: Plan, facts: InputFacts) -> tuple[float | None, bool]:
    """What writing a checkpoint takes in seconds, and whether an earlier run has measured that.

    Without one it is guessed from the size; None for a model of unknown size.
    """
    if (measured_s := measured_save_s(spec, plan)) is not None:
        return measured_s, True
    size = checkpoint_bytes(spec, facts.model.num_parameters, facts.model.shape)
    return (None if size is None else size / plan.stage("train").nodes / SAVE_BYTES_PER_S), False


def node_hosts() -> list[str]:
    """Host names of the cluster's nodes; none where they are private. ClusterError if Slurm does not answer."""
    return run_client("sinfo", "--noheader", "--all", "--format=%n", ignore=PRIVATE).split()


def is_this_host(host: str) -> bool:
    """Is a host name that of this machine?"""
    own = socket.gethostname()
    return host.partition(".")[0] in ("localhost", own.partition(".")[0])


def paths_of(spec: ExperimentSpec) -> dict[str, list[str]]:
    """Field of the spec -> absolute paths of what compute nodes have to see."""
    found: dict[str, list[str]] = {"runs_dir": [os.path.abspath(spec.runs_dir)]}
    for field, path in inputs_of(spec, "judge"):  # the stage that reads the most
        if not is_hub_name(path):
            found.setdefault(field, []).append(os.path.abspath(path))
    cluster = spec.cluster
    if not cluster.container:
        prefix = cluster.venv or cluster.conda
        field = "cluster.venv" if cluster.venv else "cluster.conda" if prefix else "python"
        found[field] = [prefix or sys.prefix]
    elif cluster.container.image_is_file:
        found["cluster.container.image"] = [os.path.abspath(os.path.expanduser(cluster.container.image))]
    return found


def raise_errors(findings: Sequence[Finding], force: bool = False) -> list[Finding]:
    """Raise PreflightError with all errors at once; else return the findings.

    With `force` the errors that the user may overrule come back as warnings.
    """
    errors = [finding for finding in findings if finding.level == "error" and not (force and finding.forcible)]
    if errors:
        lines = [line for finding in errors for line in finding.lines()]
        if any(finding.forcible for finding in errors):
            rest = "" if all(finding.forcible for finding in errors) else ", once the others are mended"
            lines.append(f"hint: --force submits all the same{rest}")
        raise PreflightError(lines)
    return [
        finding.model_copy(update={"level": "warning"}) if finding.level == "error" else finding for finding in findings
    ]
