"""What a command is asked to submit: the spec with all that follows from it, before anything is decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hpcsft.cluster.submit import check_stages, cluster_kind
from hpcsft.errors import InputError, SpecError
from hpcsft.estimate import checkpoint_bytes, with_signal_lead
from hpcsft.hub.fetch import locate
from hpcsft.inputs import InputFacts, check_inputs
from hpcsft.plan import Plan, make_plan
from hpcsft.preflight.finding import Finding
from hpcsft.preflight.run import LEVELS, preflight, raise_errors
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec, load_spec


class Request(NamedTuple):
    """A spec that is valid, and whose inputs are there."""

    spec: ExperimentSpec
    plan: Plan
    stages: list[str]
    """Those that are wanted, in the order of the plan."""
    kind: str
    """slurm or local."""
    facts: InputFacts

    @classmethod
    def of(cls, spec: ExperimentSpec, stages: str | None = None) -> Request:
        """The request for `stages` (names with commas between, None for all) of `spec`.

        Raises SpecError and InputError with every problem at once.
        """
        plan = make_plan(spec)
        wanted = check_stages(plan, stages.split(",") if stages else None)
        kind = cluster_kind(spec)
        facts = check_inputs(locate(spec), wanted)
        plan = with_signal_lead(plan, checkpoint_bytes(spec, facts.model.num_parameters, facts.model.shape))
        return cls(spec, plan, wanted, kind, facts)

    def findings(self) -> list[Finding]:
        """What stands against its submission, and what is good to know. ClusterError if Slurm does not answer."""
        found = self._known() + preflight(self.spec, self.plan, self.facts, self.kind, self.stages)
        return sorted(found, key=lambda finding: LEVELS.index(finding.level))

    def check(self, force: bool) -> list[Finding]:
        """All that is warned of. PreflightError with all errors, but for those that `force` overrules.

        Nothing is looked at where all has been submitted already.
        """
        if self._all_submitted():
            return self._known()
        return [found for found in raise_errors(self.findings(), force) if found.level == "warning"]

    def _known(self) -> list[Finding]:
        texts = self.plan.warnings + self.facts.warnings
        return [Finding(level="warning", where="", message=text) for text in texts]

    def _all_submitted(self) -> bool:
        try:
            submission = RunDir(self.spec.run_path).read_submission()
        except OSError:  # the preflight says why
            return False
        return submission is not None and all(stage in submission.latest() for stage in self.stages)


def check_changes(run: RunDir, stages: Sequence[str], overrides: Sequence[str], force: bool) -> list[Finding]:
    """What is warned of if `stages` of `run` are submitted again with `overrides`. Raises as `Request.check` does.

    Nothing is looked at where nothing changes, nor where the spec or an input is not what it was: what is done may do
    without, and the stages themselves tell what they lack.
    """
    if not overrides:
        return []
    try:
        request = Request.of(load_spec(str(run.spec), overrides), ",".join(stages))
    except (SpecError, InputError):
        return []
    return [found for found in raise_errors(request.findings(), force) if found.level == "warning"]
