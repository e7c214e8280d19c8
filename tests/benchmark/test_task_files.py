"""Guards that names mean here what they mean to lm-evaluation-harness, without loading it: a name that is refused on
the login node, or taken for another, costs a night in the queue.
"""

from __future__ import annotations

import pytest

from hpcsft.benchmark.task_files import TaskFiles, read_task_file
from hpcsft.errors import InputError


def names(files: TaskFiles, name: str) -> list[str]:
    return [task.name for task in files.tasks(name)]


def test_tasks_groups_and_tags(task_folder):
    files = TaskFiles([task_folder])
    assert names(files, "choice") == ["choice"]
    assert names(files, "all") == ["choice", "answer"]
    assert names(files, "both") == ["answer", "choice"], "those of a tag come by name"
    (task,) = files.tasks("answer")
    assert task.folder == task_folder
    assert (task.values["num_fewshot"], task.values["dataset_path"]) == (2, "json"), "its own and what it includes"
    assert task.values["output_type"] == "generate_until", "its own wins"


def test_groups_in_groups_and_what_they_say_about_their_members(write):
    folder = write(
        one="task: one\ndataset_path: json\n",
        two="task: two\ntag: [first, 'second']\ndataset_path: csv\n",
        inner="group: inner\ntask:\n  - one\n",
        outer="""
            group: outer
            task:
              - group: inner
                dataset_path: parquet
              - task: two
                num_fewshot: 5
              - group: there and then
                task:
                  - second
              - task: new
                dataset_path: text
        """,
    )
    found = TaskFiles([folder]).tasks("outer")
    assert [(task.name, task.values["dataset_path"], task.values.get("num_fewshot")) for task in found] == [
        ("one", "parquet", None),
        ("two", "csv", 5),
        ("two", "csv", None),
        ("new", "text", None),
    ]


@pytest.mark.parametrize("include", ["base", "[base]", "\n  - 'base'", "further.yaml"])
def test_a_tag_may_be_in_a_file_that_is_included(include, write):
    folder = write(one=f"task: one\ninclude: {include}\n", further="include: base\n")
    (folder / "base").write_text("tag: inherited\n")
    assert names(TaskFiles([folder]), "inherited") == ["one"]


def test_the_first_folder_wins(write, task_folder):
    folder = write(choice="task: choice\ndataset_path: csv\n")
    (task,) = TaskFiles([folder, task_folder]).tasks("choice")
    assert (task.folder, task.values["dataset_path"]) == (folder, "csv")
    assert names(TaskFiles([folder, task_folder]), "all") == ["choice", "answer"], "members from either"


def test_functions_are_not_run(write):
    folder = write(one="task: one\nprocess_docs: !function utils.process\nclass: !function utils.Own\n")
    (task,) = TaskFiles([folder]).tasks("one")
    assert task.values["process_docs"] == "utils.process"


@pytest.mark.parametrize(
    ("name", "missing"), [("absent", "absent"), ("outer", "absent"), ("round", "round"), ("hoice", "hoice")]
)
def test_what_is_not_there(name, missing, write):
    folder = write(
        choice="task: choice\n", outer="group: outer\ntask: [choice, absent]\n", round="group: round\ntask: [round]\n"
    )
    with pytest.raises(KeyError) as caught:
        TaskFiles([folder]).tasks(name)
    assert caught.value.args == (missing,)


def test_the_nearest_names(task_folder):
    assert TaskFiles([task_folder]).nearest("chioce") == ["choice"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: one\n  tag: [", "cannot be read as a task file: "),
        ("- task: one\n", "no task file"),
        ("task: one\ninclude: absent\n", "absent: cannot be read as a task file: "),
        ("task: one\ninclude: one.yaml\n", "includes itself"),
    ],
)
def test_a_task_file_that_cannot_be_read_is_named(text, message, write):
    folder = write(one=text)
    with pytest.raises(InputError, match=message):
        read_task_file(folder / "one.yaml")


def test_only_files_that_a_name_needs_are_looked_into(write):
    """One broken file among the 14000 of the package is no reason to refuse the others."""
    folder = write(one="task: one\n", broken="task: two\n  tag: [one\n")
    assert names(TaskFiles([folder]), "one") == ["one"]
    with pytest.raises(InputError, match=r"broken\.yaml: cannot be read as a task file"):
        TaskFiles([folder]).tasks("two")
