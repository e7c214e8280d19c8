"""Where the time of training went: every part against stories whose truth is known, and their sum against the clock."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from hpcsft.usage.record import COMPUTED, LOST, WAITING
from hpcsft.usage.training import split
from tests.usage.story import Story


def parts_s(story: Story, *seen_s: float) -> list[dict[str, float]]:
    """Seconds of each attempt by part, without zeros."""
    found = split(story.attempts(seen_s), story.steps(), story.validated_ms())
    return [{part: ms / 1000 for part, ms in parts.items() if ms} for parts in found]


def test_an_undisturbed_run():
    story = Story()
    story.start()
    story.resumed(30)
    story.validated(8, 0)
    story.step(2, data_s=0.5)
    story.row("saved", 0.25, step=1, held_s=0.25, took_s=1)
    story.step(2, after_s=0.5)
    for _ in range(8):
        story.step(1)
    story.row("saved", 3, step=10, held_s=0.5, took_s=3)
    story.validated(8, 10)
    story.row("done", 20)
    assert parts_s(story) == [
        {"start": 30, "epoch_ends": 8 + 8 + 20, "data": 0.5, "work": 11.5, "saving": 0.25 + 3, "other": 0.5}
    ]


def killed() -> Story:
    """Steps 1 to 4, saved after 2; a kill in the middle of step 5; the next attempt goes on after 2."""
    story = Story()
    story.start()
    story.resumed(30)
    for number in (1, 2, 3, 4):
        story.step(2)
        if number == 2:
            story.row("saved", 0.5, step=2, held_s=0.5, took_s=0.5)
    story.end(1, "rank_failure", status=1)
    story.requeued(60)
    story.start()
    story.resumed(30, step=2)
    story.step(2)
    return story


def test_what_a_kill_took_is_lost_and_so_is_the_next_start():
    story = killed()
    first, second = parts_s(story)
    assert first == {"start": 30, "work": 4, "saving": 0.5, "steps_again": 5}
    assert second == {"start_again": 30, "work": 2}


def test_a_stop_with_notice_loses_nothing_but_the_next_start():
    story = Story()
    story.start()
    story.resumed(30)
    story.step(2)
    story.row("notice", 0.5, signal="SIGTERM")
    story.step(2, after_s=-0.5)
    story.row("saved", 4, step=2, held_s=1, took_s=4)
    story.row("stopped", 1, cause="preemption")
    story.end(2, "preemption", status=143)
    story.requeued(60)
    story.start()
    story.resumed(20, step=2)
    story.row("stopped", 1, cause="preemption")
    story.end(0, "preemption", progressed=False, status=143)
    assert parts_s(story) == [{"start": 30, "work": 4, "saving": 4, "other": 3}, {"nothing_kept": 21}]


def test_the_time_in_which_an_attempt_hung_is_not_that_of_its_steps():
    story = Story()
    story.start()
    story.resumed(30)
    for _ in range(4):
        story.step(2)
    story.row("saved", 0, step=4, held_s=0, took_s=0)
    for _ in range(3):
        story.step(2)
    story.end(600, "hang", status=137)
    story.requeued(10)
    story.start()
    story.resumed(30, step=4)
    assert parts_s(story)[0] == {"start": 30, "work": 8, "steps_again": 6, "hang": 600}


def test_a_hang_of_an_attempt_that_kept_nothing():
    story = Story()
    story.start()
    story.resumed(30)
    story.step(2)
    story.end(600, "hang", progressed=False, status=137)
    story.requeued(10)
    story.start()
    story.resumed(30)
    story.step(2)
    story.row("done", 0)
    assert parts_s(story) == [{"nothing_kept": 32, "hang": 600}, {"start": 30, "work": 2}]


@pytest.mark.parametrize(("steps_after", "computed", "lost"), [(2, 8 + 20, 4), (0, 8, 20)])
def test_an_export_stands_if_steps_came_after_it(steps_after, computed, lost):
    """Killed two steps after the end of an epoch, or in the middle of its export."""
    story = Story()
    story.start()
    story.resumed(30)
    for _ in range(10):
        story.step(2)
    story.row("saved", 3, step=10, held_s=1, took_s=3)
    story.validated(8, 10)
    story.passes(20)
    for _ in range(steps_after):
        story.step(2)
    story.end(0, "rank_failure", status=1)
    story.requeued(10)
    story.start()
    story.resumed(30, step=10)
    story.row("done", 1)
    assert parts_s(story)[0] == {"start": 30, "work": 20, "saving": 3, "epoch_ends": computed, "steps_again": lost}


def test_a_validation_alone_is_something_that_was_kept():
    """The attempt before ended right after the last step; this one validates, and is killed during the export."""
    story = Story()
    story.start()
    story.resumed(30)
    for _ in range(10):
        story.step(2)
    story.row("saved", 3, step=10, held_s=1, took_s=3)
    story.row("stopped", 0, cause="preemption")
    story.requeued(60)
    story.start()
    story.resumed(30, step=10)
    story.validated(8, 10)
    story.end(5, "rank_failure", status=1)
    assert parts_s(story)[1] == {"start_again": 30, "epoch_ends": 8, "steps_again": 5}


def test_steps_that_a_damaged_checkpoint_undid_are_lost_where_they_were_done_first():
    story = killed()
    story.row("saved", 0, step=3, held_s=0, took_s=0)
    story.end(0, "rank_failure", status=1)
    story.requeued(10)
    story.start()
    story.resumed(30, step=1)  # 2 and 3 were damaged
    story.step(2)
    story.row("done", 0)
    assert [parts.get("work", 0) for parts in parts_s(story)] == [2, 0, 2]


def test_what_runs_has_lost_nothing_yet():
    story = Story()
    story.start()
    assert parts_s(story, 12) == [{"start": 12}]
    story.resumed(30)
    story.step(2)
    assert parts_s(story, 33) == [{"start": 30, "work": 2, "other": 1}]


PER_EPOCH, EVERY, STEP_S = 7, 3, 2.0


def random_run(seed: int) -> tuple[Story, Counter[str]]:
    """A training of two epochs that is interrupted again and again; and where its seconds went, as it knows itself."""
    chance, story, truth = random.Random(seed), Story(), Counter[str]()
    saved, validated, exported, first = 0, set[int](), {0}, True
    while True:
        spent: Counter[str] = Counter()
        lost_from: dict[str, Counter[str]] = {}

        def spend(part: str, seconds: float, spent: Counter[str] = spent) -> float:
            spent[part] += round(seconds * 1000)
            return seconds

        def finish(cause: str | None, kept: bool, spent: Counter[str] = spent) -> None:
            nonlocal first
            if not kept and cause:
                spent["nothing_kept"] = sum(spent.values())
                for part in set(spent) - {"nothing_kept"}:
                    del spent[part]
            truth.update(spent)
            first = first and not (kept or not cause)
            if cause:
                story.end(0, cause, progressed=kept, status=1)
                story.requeued(chance.randint(0, 900))

        def killed_now() -> bool:
            return chance.random() < 0.08

        began = saved
        story.start()
        startup_s = chance.randint(10, 40)
        if killed_now():
            spend("start", startup_s / 2)
            story.passes(startup_s / 2)
            finish("rank_failure", False)
            continue
        if began == 0:
            validated.clear()
        story.resumed(spend("start" if first else "start_again", startup_s), step=began)
        step, since_save, kept, ended = began, 0, False, False
        while True:
            epoch, rest = divmod(step, PER_EPOCH)
            if rest == 0 and epoch not in validated:
                validate_s = chance.randint(4, 9)
                if killed_now():
                    spend("steps_again", validate_s / 2)
                    story.passes(validate_s / 2)
                    finish("rank_failure", kept)
                    ended = True
                    break
                story.validated(spend("epoch_ends", validate_s), step)
                validated.add(epoch)
                kept = kept or began > 0 or step > 0
            if rest == 0 and epoch not in exported:
                export_s = chance.randint(4, 9)
                if killed_now():
                    spend("steps_again", export_s / 2)
                    story.passes(export_s / 2)
                    finish("rank_failure", kept)
                    ended = True
                    break
                story.passes(spend("epoch_ends", export_s))
                exported.add(epoch)
            if step == 2 * PER_EPOCH:
                story.row("done")
                finish(None, True)
                return story, truth
            data_s = chance.choice([0.0, 0.25])
            step = story.step(STEP_S, data_s, per_epoch=PER_EPOCH)
            since_save += 1
            lost_from.setdefault("steps", Counter()).update({"data": round(data_s * 1000)})
            fate = chance.random()
            if fate < 0.05:  # killed right after the step: nothing since the last save is kept
                spend("steps_again", since_save * STEP_S)
                finish("rank_failure", kept)
                ended = True
                break
            if fate < 0.1 or step % EVERY == 0 or step % PER_EPOCH == 0:
                held_s = chance.randint(1, 3)
                waited = lost_from.pop("steps")["data"]
                spent["data"] += waited
                spent["work"] += round(since_save * STEP_S * 1000) - waited
                story.row("saved", spend("saving", held_s), step=step, held_s=held_s, took_s=held_s)
                saved, since_save, kept = step, 0, True
            if fate < 0.1 and step % PER_EPOCH:
                story.row("stopped", spend("other", 1), cause="preemption")
                finish("preemption", True)
                ended = True
                break
        assert ended


@pytest.mark.parametrize("seed", range(60))
def test_every_part_is_what_the_run_itself_knows(seed):
    story, truth = random_run(seed)
    attempts = story.attempts()
    found: Counter[str] = Counter()
    for attempt, parts in zip(attempts, split(attempts, story.steps(), story.validated_ms()), strict=True):
        assert sum(parts.values()) == attempt.duration_ms
        found.update(parts)
    assert +found == +truth
    assert len(story.metrics) * STEP_S * 1000 == found["work"] + found["data"], "each step once"


@pytest.mark.parametrize("seed", range(200))
def test_the_parts_add_up_whatever_the_clocks_say(seed):
    """Rows of hosts whose clocks differ, saves of steps that are gone, times that go backwards."""
    chance = random.Random(seed)
    story = Story()
    for _ in range(chance.randint(1, 5)):
        story.start()
        for _ in range(chance.randint(0, 12)):
            skew_s = chance.uniform(-5, 20)
            kind = chance.choice(["resumed", "step", "step", "step", "saved", "validated"])
            if kind == "resumed":
                story.resumed(skew_s, step=chance.randint(0, 12))
            elif kind == "step":
                story.step(chance.uniform(0.1, 8), chance.uniform(0, 9), chance.uniform(-3, 3), per_epoch=5)
            elif kind == "saved":
                held_s = chance.uniform(0, 30)
                story.row("saved", skew_s, step=chance.randint(0, 12), held_s=held_s, took_s=held_s)
            else:
                story.validated(skew_s, chance.randint(0, 12))
        if chance.random() < 0.5:
            story.row(chance.choice(["stopped", "failed", "done"]), chance.uniform(-5, 5), cause="signal")
        if chance.random() < 0.7:
            cause = chance.choice(["hang", "preemption", "node_failure"])
            story.end(chance.uniform(-9, 30), cause, **({"status": 1} if chance.random() < 0.5 else {}))
        story.requeued(chance.uniform(-9, 90))
    attempts = story.attempts([chance.uniform(0, 300)])
    for attempt, parts in zip(attempts, split(attempts, story.steps(), story.validated_ms()), strict=True):
        assert sum(parts.values()) == attempt.duration_ms >= 0
        assert min(parts.values(), default=0) >= 0
        assert set(parts) <= {*COMPUTED, *LOST, *WAITING}
