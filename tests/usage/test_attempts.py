"""When attempts began and ended, and why: whoever writes late must not stretch them."""

from __future__ import annotations

import pytest

from tests.usage.story import Story, time


def lengths_s(story: Story, *seen_s: float) -> list[float]:
    return [attempt.duration_ms / 1000 for attempt in story.attempts(seen_s)]


def test_an_attempt_lasts_until_the_batch_script_says_so():
    story = Story()
    story.start()
    story.row("failed", 10, cause="rank_failure")
    story.end(5, "rank_failure", status=1)
    assert lengths_s(story) == [15]


@pytest.mark.parametrize("word", ["done", "stopped", "failed"])
def test_without_the_batch_script_its_own_last_word_counts(word):
    story = Story()
    story.start()
    story.row(word, 10, cause="signal")
    assert lengths_s(story, 500) == [10], "whoever lives after it has other things to do"


def late_end(**facts: object) -> Story:
    """Killed 20 s after its start without a word; the next attempt comes after an hour and looks back."""
    story = Story()
    story.start()
    story.row("resumed", 20, step=0, lost_steps=0)
    story.passes(3600)
    story.end(0, "node_failure")
    story.restart = 1
    story.start(**facts)
    story.row("done", 7)
    return story


def test_an_attempt_that_was_killed_did_not_last_until_somebody_looked_back():
    assert lengths_s(late_end()) == [20, 7]


def test_signs_of_life_before_the_next_attempt_count():
    assert lengths_s(late_end(last_seen=time(33_000))) == [33, 7]
    assert lengths_s(late_end(), 44, 3622) == [44, 7], "what comes after the next start is not the first's"


def test_the_end_that_is_told_late_belongs_to_the_attempt_before():
    first, second = late_end().attempts()
    assert (first.end, first.cause, second.end) == ("killed", "node_failure", "done")


def test_what_still_runs_lasts_until_its_last_sign_of_life():
    story = Story()
    story.start()
    (attempt,) = story.attempts([12])
    assert (attempt.end, attempt.duration_ms, attempt.kept) == ("open", 12_000, True)


def test_two_starts_under_one_name_are_two_attempts():
    """By hand from one shell."""
    story = Story(job_id="hand-9")
    for _ in range(2):
        story.start(5)
        story.row("stopped", 10, cause="signal")
    assert lengths_s(story) == [10, 10] and all(attempt.by_hand for attempt in story.attempts())


def test_a_job_that_could_not_say_anything_is_an_attempt_without_length():
    story = Story()
    story.end(5, "node_failure", progressed=False, status=1)
    (attempt,) = story.attempts()
    assert (attempt.duration_ms, attempt.end, attempt.kept, attempt.world_size) == (0, "killed", False, None)


def test_files_of_one_task_may_come_in_any_order():
    """An array that became a plain job has two."""
    story = late_end()
    story.rows = story.rows[-2:] + story.rows[:-2]
    assert lengths_s(story) == [20, 7]


def test_items_that_were_finished_were_kept():
    """By what the verdict says; without one by how far the next attempt found the task, or how far it is now."""
    story = Story("generate")
    story.start(done=4)
    story.row("stopped", 9, cause="signal")
    story.restart = 1
    story.start(9, done=4)
    story.row("failed", 9, cause="code")
    assert [attempt.kept for attempt in story.attempts(done_items=6)] == [False, True]
    assert [attempt.kept for attempt in story.attempts(done_items=4)] == [False, False]
    story.end(1, "code", progressed=False, status=1)
    assert [attempt.kept for attempt in story.attempts(done_items=6)] == [False, False]


def test_a_failure_tells_the_cause_where_nobody_judged():
    story = Story()
    story.start()
    story.row("failed", 1, cause="rank_failure")
    story.row("failed", 1, cause="out_of_memory")
    story.job_id = "8"
    story.start(5)
    story.job_id = "9"
    story.start(5)
    assert [attempt.cause for attempt in story.attempts()] == ["out_of_memory", "unknown", "unknown"]
