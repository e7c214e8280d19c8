"""Training is told early enough that its time limit comes: not too late to save, not before it has begun."""

from __future__ import annotations

from hpcsft.estimate.lead import SAVE_BYTES_PER_S, STOP_MARGIN_S, with_measured_lead, with_signal_lead
from hpcsft.plan import Plan, make_plan
from tests.estimate.models import spec_of


def plan_of(time: str, nodes: int = 1) -> Plan:
    return make_plan(spec_of(cluster={"train": {"time": time, "nodes": nodes}}))


def lead_s(plan: Plan) -> int:
    return plan.stage("train").signal_s


def test_training_is_told_early_enough_to_write_a_checkpoint():
    size = int(100 * SAVE_BYTES_PER_S)
    assert lead_s(with_signal_lead(plan_of("10:00:00"), None)) == STOP_MARGIN_S
    assert lead_s(with_signal_lead(plan_of("10:00:00"), size)) == STOP_MARGIN_S + 200
    assert lead_s(with_signal_lead(plan_of("10:00:00", nodes=4), size)) == STOP_MARGIN_S + 50
    plan = plan_of("10:00:00")
    told = with_signal_lead(plan, size)
    assert [stage for stage in told.stages if stage.name != "train"] == [s for s in plan.stages if s.name != "train"]
    assert told.warnings == plan.warnings


SAVED = [{"event": "start"}, {"event": "saved", "took_s": 10.0}, {"event": "saved", "took_s": 40.0}]
STEPS = [{"tokens": 1000, "tokens_per_s": 1000.0}, {"tokens": 6000, "tokens_per_s": 200.0}]


def test_what_was_measured_counts_instead_of_the_guess():
    plan = with_signal_lead(plan_of("10:00:00"), int(1000 * SAVE_BYTES_PER_S))
    assert lead_s(with_measured_lead(plan, SAVED, STEPS)) == STOP_MARGIN_S + 2 * 30 + 1.5 * 40
    for journal, metrics in (([], STEPS), (SAVED, []), ([{"event": "start"}], STEPS)):
        assert with_measured_lead(plan, journal, metrics) == plan


def test_a_time_limit_that_is_too_short_is_told_once_however_often_it_is_resumed():
    plan = with_signal_lead(plan_of("00:10:00"), int(1000 * SAVE_BYTES_PER_S))
    assert lead_s(plan) == 300, "a signal ahead of the start would come at once"
    (warning,) = plan.warnings
    assert "cluster.train.time 00:10:00 is short" in warning and "1000 s" in warning and "2060 s" in warning
    slow = [{"event": "saved", "took_s": 400.0}]
    for _ in range(3):
        plan = with_measured_lead(plan, slow, STEPS)
        (warning,) = plan.warnings
        assert "a step took up to 30 s and a checkpoint 400 s" in warning and "it will be told 300 s before" in warning
    assert with_measured_lead(plan, SAVED, STEPS).warnings == []
