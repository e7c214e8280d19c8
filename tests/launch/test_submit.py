"""`submit`: what it refuses, and that it then leaves nothing behind; and what a dry run shows, which is what would run.

All of it through the real script in a process of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpcsft.spec import parse_spec
from hpcsft.spec.sbatch_options import SBATCH_DERIVED, SBATCH_OWNED
from tests.launch.command import empty_path, environment, launch, slurm_path

STAGES = ["preprocess", "train", "generate", "judge", "report"]


class Submit:
    """Writes a spec and runs launch/submit.py on it; PATH holds programs called sbatch and srun, or none."""

    def __init__(self, folder: Path, values: dict[str, Any]):
        self.folder = folder
        self.values = values
        self.with_slurm = slurm_path(folder / "with")
        self.without_slurm = empty_path(folder / "without")

    def __call__(self, *arguments: str, slurm: bool = False) -> subprocess.CompletedProcess[str]:
        path = self.folder / "spec.json"
        path.write_text(json.dumps(self.values, ensure_ascii=False), encoding="utf-8")
        programs = self.with_slurm if slurm else self.without_slurm
        return launch("submit.py", path, *arguments, cwd=self.folder, path=programs)

    def dry(self, *arguments: str, slurm: bool = False) -> dict[str, Any]:
        """The document of a dry run."""
        done = self("--dry-run", "--json", *arguments, slurm=slurm)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    def refused(self, *arguments: str, code: int = 2, slurm: bool = False) -> list[str]:
        """The error lines of a call that must fail with `code`, print nothing on stdout and write nothing."""
        before = self.files()
        done = self(*arguments, slurm=slurm)
        assert (done.returncode, done.stdout) == (code, "")
        assert "Traceback" not in done.stderr
        assert self.files() - {"spec.json"} == before - {"spec.json"}
        return done.stderr.splitlines()

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}


@pytest.fixture
def submit(tmp_path, spec_values) -> Submit:
    return Submit(tmp_path, spec_values)


def test_a_spec_with_five_mistakes(submit):
    submit.values["train"] |= {"epoch": 3, "scheduler": "cosin", "learning_rate": -1}
    submit.values["name"] = "a; rm -rf ~"
    del submit.values["model"]
    lines = submit.refused()
    errors = [line for line in lines if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in errors] == [
        "name",
        "model",
        "train.learning_rate",
        "train.scheduler",
        "train.epoch",
    ]
    assert all(line.startswith(("error: ", "hint: ")) for line in lines)
    assert "hint: did you mean train.epochs?" in lines and "hint: did you mean 'cosine'?" in lines


def test_a_spec_that_is_not_there(submit):
    done = launch("submit.py", "none.json", cwd=submit.folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: none.json: cannot be read: No such file or directory\n"


def test_bad_inputs_are_told_together_and_write_nothing(submit, tmp_path):
    submit.values["model"]["path"] = str(tmp_path / "no-model")
    submit.values["data"]["train"] = [str(tmp_path / "no-data.jsonl")]
    submit.values["evaluate"]["prompts"] = str(tmp_path / "no-prompts.json")
    errors = [line for line in submit.refused() if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in errors] == ["model.path", "data.train", "evaluate.prompts"]
    assert not (tmp_path / "runs").exists()


def test_a_plan_that_does_not_fit_writes_nothing(submit):
    submit.values["train"]["global_batch_size"] = 7
    assert submit.refused() == [
        "error: train.global_batch_size: global_batch_size 7 is no multiple of micro_batch_size 2 x 2 ranks = 4; "
        "nearest: 4 or 8"
    ]


def test_stages_that_do_not_exist(submit):
    assert submit.refused("--stages", "train,evaluate,judgement") == [
        "error: --stages: no stage 'evaluate'",
        "hint: the stages of this spec are preprocess, train, generate, judge, report",
        "error: --stages: no stage 'judgement'",
        "hint: the stages of this spec are preprocess, train, generate, judge, report",
    ]


def test_stages_that_need_others_are_refused_and_leave_nothing(submit):
    assert submit.refused("--stages", "judge", code=1) == [
        "error: the stage judge needs generate, which is neither done nor submitted",
        "hint: add it: --stages generate,judge",
    ]


def test_a_set_that_is_wrong(submit):
    assert submit.refused("--set", "train.epochs=0") == ["error: train.epochs: must be greater than 0; given 0"]
    assert submit.refused("--set", "oops")[0] == "error: --set oops: not of the form path=value"


def test_slurm_that_is_not_here(submit):
    assert submit.refused("--cluster", "slurm", code=1) == [
        "error: cluster.kind is slurm, but there is no sbatch here",
        "hint: submit on a login node of the cluster",
    ]


def test_auto_takes_slurm_where_it_is(submit):
    submit.values["cluster"]["kind"] = "auto"
    assert submit.dry()["cluster"] == "local"
    assert submit.dry(slurm=True)["cluster"] == "slurm"
    assert submit.dry("--cluster", "local", slurm=True)["cluster"] == "local"


def test_auto_without_slurm_refuses_several_nodes(submit):
    """Otherwise half of the ranks would be missing, and nobody would say so."""
    submit.values["cluster"] |= {"kind": "auto", "train": {"nodes": 2, "tasks_per_node": 1}}
    assert "cluster.train.nodes" in submit.refused("--dry-run")[0]
    assert submit.dry(slurm=True)["batch"]["world_size"] == 2


def test_a_dry_run_writes_nothing(submit):
    submit.refused("--dry-run", "--set", "seed=-1")
    before = submit.files()
    assert submit("--dry-run").returncode == 0
    assert submit("--dry-run", "--json").returncode == 0
    assert submit.files() == before


def test_a_dry_run_shows_arithmetic_deepspeed_and_stages(submit):
    done = submit("--dry-run", "--set", "train.zero_stage=1")
    text = done.stdout
    assert done.stderr == ""
    assert "global batch     8 = 2 ranks x 2 rows x 2 accumulation steps\n" in text
    assert "tokens per step  at most 512\n" in text
    assert "(nothing is written now)" in text
    assert "LlamaForCausalLM" in text
    assert "prompts          6\n" in text
    assert "GPU-hours        at most 0.0" in text
    shown, _ = json.JSONDecoder().raw_decode(text, text.index("{"))
    assert shown["train_batch_size"] == 8
    assert shown["train_micro_batch_size_per_gpu"] == 2
    assert shown["gradient_accumulation_steps"] == 2
    assert shown["zero_optimization"]["stage"] == 1
    assert [line for line in text.splitlines() if line.startswith("== ")] == [
        "== preprocess",
        "== train after preprocess",
        "== generate after train, array of 2",
        "== judge after generate",
        "== report after judge",
    ]


@pytest.mark.parametrize("template", ["tokenizer", "own.jinja", "user_assistant"])
def test_a_dry_run_says_what_tries_a_template_in_jinja(submit, template):
    """A login node does without Jinja, so that a template that does not compile passes here."""
    told = "hpcsft preview SPEC.json"
    if template == "own.jinja":
        (submit.folder / template).write_text("{% for m in messages %}")
    elif template == "tokenizer":
        model = Path(submit.values["model"]["path"])
        copy = submit.folder / "model"
        shutil.copytree(model, copy)
        (copy / "chat_template.jinja").write_text("{% for m in messages %}")
        submit.values["model"]["path"] = str(copy)
    submit.values["data"]["template"] = template
    done = submit("--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(told) == (template != "user_assistant")


def test_a_dry_run_as_one_document(submit):
    document = submit.dry()
    spec = parse_spec(submit.values)
    assert document["run_dir"] == spec.run_path
    assert document["batch"] == {
        "global_batch_size": 8,
        "micro_batch_size": 2,
        "world_size": 2,
        "accumulation_steps": 2,
        "tokens_per_step": 512,
    }
    assert document["inputs"]["num_prompts"] == 6
    assert document["deepspeed"]["bf16"] == {"enabled": False}
    assert document["deepspeed"]["optimizer"]["params"]["torch_adam"] is True, "DeepSpeed's own Adam would be compiled"
    assert document["deepspeed"]["optimizer"]["params"]["fused"] is True
    assert [stage["stage"] for stage in document["stages"]] == STAGES
    assert {stage["sbatch"] for stage in document["stages"]} == {None}
    memory = document["memory_per_rank"]
    assert memory["states_bytes"] == sum(memory[f"{part}_bytes"] for part in ("parameters", "gradients", "optimizer"))
    assert memory["parameters_bytes"] == 4 * document["inputs"]["model"]["num_parameters"]


def test_a_dry_run_of_some_stages(submit):
    document = submit.dry("--stages", "train,preprocess")
    assert [stage["stage"] for stage in document["stages"]] == ["preprocess", "train"]


SECRETS = 'x y\'s "z" $(touch pwned) `touch pwned` $HOME \\ %j ; touch pwned'


@pytest.fixture
def scripts(submit) -> dict[str, str]:
    """The batch script of every stage of a spec that uses all it can."""
    submit.values["cluster"] = {
        "kind": "slurm",
        "partition": "gpu",
        "account": "lab",
        "qos": "long",
        "constraint": "a100",
        "cpus_per_task": 4,
        "mem_gb": 12.5,
        "gpus_per_node": 2,
        "array_parallelism": 3,
        "setup": ["module load cuda/12", "ulimit -n 4096", "cd /", "set -e", "trap - TERM"],
        "env": {"GREETING": SECRETS, "A": "1"},
        "sbatch": {"exclude": "n7,n8", "exclusive": True, "nice": 100},
        "preprocess": {"tasks": 5, "partition": "cpu", "time": "00:30:00", "cpus_per_task": 8},
        "train": {"nodes": 2, "time": "1-00:00:00"},
        "judge": {"gpus_per_node": 0},
    }
    submit.values["train"] |= {"global_batch_size": 8, "micro_batch_size": 2}
    document = submit.dry(slurm=True)
    return {stage["stage"]: stage["sbatch"] for stage in document["stages"]} | {"run_dir": document["run_dir"]}


def options(script: str) -> dict[str, str]:
    """The #SBATCH options of a script. Each may stand there only once."""
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH ")]
    pairs = [line.partition("=")[::2] for line in lines]
    assert len(pairs) == len(dict(pairs)), "an option stands there twice"
    return dict(pairs)


def test_each_stage_asks_for_its_resources(scripts):
    shared = {
        "account": "lab",
        "qos": "long",
        "constraint": "a100",
        "mem": "12800M",
        "nice": "100",
        "requeue": "",
        "exclusive": "",
    }
    own = {
        "preprocess": {"partition": "cpu", "time": "30", "cpus-per-task": "8", "nodes": "1", "ntasks-per-node": "1"},
        "train": {"partition": "gpu", "time": "1440", "cpus-per-task": "4", "nodes": "2", "ntasks-per-node": "2"},
        "generate": {"partition": "gpu", "time": "240", "cpus-per-task": "4", "nodes": "1", "ntasks-per-node": "1"},
        "judge": {"partition": "gpu", "time": "240", "cpus-per-task": "4", "nodes": "1", "ntasks-per-node": "1"},
        "report": {"partition": "gpu", "time": "15", "cpus-per-task": "4", "nodes": "1", "ntasks-per-node": "1"},
    }
    for stage in STAGES:
        assert options(scripts[stage]).items() >= {**shared, **own[stage], "exclude": "n7,n8"}.items(), stage


def test_gpus_are_asked_for_where_they_are_used(scripts):
    assert {stage: options(scripts[stage]).get("gpus-per-node") for stage in STAGES} == {
        "preprocess": None,
        "train": "2",
        "generate": "1",
        "judge": None,
        "report": None,
    }


def test_arrays_run_so_many_at_once(scripts):
    assert {stage: options(scripts[stage]).get("array") for stage in STAGES} == {
        "preprocess": "0-4%3",
        "train": None,
        "generate": "0-1%2",
        "judge": None,
        "report": None,
    }


def test_stages_wait_for_the_success_of_those_before(scripts):
    """And are cancelled if it fails, instead of waiting in the queue for ever."""
    waits = {stage: options(scripts[stage]).get("dependency") for stage in STAGES}
    assert waits == {
        "preprocess": None,
        "train": "'afterok:<preprocess>'",
        "generate": "'afterok:<train>'",
        "judge": "'afterok:<generate>'",
        "report": "'afterok:<judge>'",
    }
    invalid = {stage: options(scripts[stage]).get("kill-on-invalid-dep") for stage in STAGES}
    assert invalid == {stage: None if stage == "preprocess" else "yes" for stage in STAGES}


def test_jobs_run_in_the_snapshot_and_are_found_by_name(scripts):
    run_dir = scripts["run_dir"]
    for stage in STAGES:
        found = options(scripts[stage])
        assert found["chdir"] == f"{run_dir}/code"
        assert found["job-name"] == f"tiny.{stage}"
        assert found["comment"] == f"hpcsft:{Path(run_dir).name}:{stage}"
        assert found["output"].startswith(f"{run_dir}/submitit/{stage}/")
        notice_s = int(found["signal"].removeprefix("USR2@"))  # before the end of the time limit
        assert notice_s >= 60 if stage == "train" else notice_s == 60


def test_the_batch_script_outlives_the_notice_and_judges_how_the_ranks_ended(scripts):
    """It waits for srun, hands its exit status to the judgement, and ends as that says."""
    for stage in STAGES:
        lines = [line for line in scripts[stage].splitlines() if line and not line.startswith("#")]
        assert any(line.startswith("trap : TERM") for line in lines)
        (place,) = [number for number, line in enumerate(lines) if line.startswith("srun ")]
        status, judge, leave = lines[place + 1 :]
        assert (status, leave) == ("status=$?", "exit $?")
        assert judge.endswith(f" -m hpcsft.attempt.after_srun {scripts['run_dir']} {stage} $status")


def test_one_rank_that_dies_takes_the_others_along(scripts):
    """Without it the others wait in a collective until the time limit. srun needs the CPUs told again since 22.05."""
    cpus = {"preprocess": 8}
    for stage in STAGES:
        (srun,) = [line for line in scripts[stage].splitlines() if line.startswith("srun ")]
        assert " --kill-on-bad-exit=1 " in srun
        assert f" --cpus-per-task={cpus.get(stage, 4)} " in srun
        assert srun.endswith(f" -u -m submitit.core._submit {scripts['run_dir']}/submitit/{stage}")


@pytest.mark.parametrize("stage", STAGES)
def test_a_real_shell_sees_the_set_up_and_the_variables_as_they_stand(stage, scripts, tmp_path):
    """Setup lines run as they are; what stands in `env` is data, whatever it looks like."""
    body, _, _ = scripts[stage].partition("\n# command\n")
    assert body.index("module load cuda/12\n") < body.index("ulimit -n 4096\n") < body.index("export A=1\n")
    assert in_a_shell(scripts, body, 'printf "%s" "$GREETING"') == (SECRETS, "")
    assert not list(tmp_path.rglob("pwned"))


def in_a_shell(scripts: dict[str, str], body: str, *then: str) -> tuple[str, str]:
    """What a script prints that goes up to srun, and what then stands in place of it."""
    code = Path(scripts["run_dir"], "code")
    code.mkdir(parents=True)
    for stage in STAGES:  # the pickled tasks, which are laid down before sbatch
        folder = code.with_name("submitit") / stage
        folder.mkdir(parents=True)
        (folder / "0.pkl").touch()
    lines = [body.replace("module load cuda/12", "true"), *then]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, cwd=code, env=environment())
    return done.stdout, done.stderr


def test_whatever_the_set_up_did_the_shell_lives_on_in_the_runs_own_code(scripts):
    """Setup lines that change the folder, end the shell at the first error, or take its traps away."""
    body, _, _ = scripts["train"].partition("\n# command\n")
    told = in_a_shell(scripts, body, "kill -TERM $$", "false", "echo status $?", "pwd")
    assert told == (f"status 1\n{scripts['run_dir']}/code\n", "")


def test_no_option_of_a_script_has_a_second_source(scripts):
    """What hpcsft writes into a script is refused in `cluster.sbatch`: the tables must not fall behind."""
    given = {"exclude", "exclusive", "nice"}
    written = {option for stage in STAGES for option in options(scripts[stage])} - given
    free = {"open-mode"}  # of submitit's own logs, which are not the run's
    assert written - free <= {*SBATCH_OWNED, *SBATCH_DERIVED}


def test_paths_of_inputs_stay_out_of_the_scripts(submit, tiny_model, tmp_path):
    """They may hold anything, for they are only read by Python."""
    folder = tmp_path / "a model; $(touch pwned) %j"
    folder.symlink_to(tiny_model)
    submit.values["model"]["path"] = str(folder)
    for stage in submit.dry("--cluster", "slurm", slurm=True)["stages"]:
        assert "touch" not in stage["sbatch"]


def test_what_the_cluster_leaves_out_is_left_to_slurm(submit):
    submit.values["cluster"] = {"kind": "slurm"}
    document = submit.dry(slurm=True)
    for stage in document["stages"]:
        unasked = {"partition", "account", "qos", "constraint", "mem", "gpus-per-node", "cpus-per-task", "wckey"}
        assert not unasked & options(stage["sbatch"]).keys()
        assert "None" not in stage["sbatch"]


def test_an_sbatch_option_that_is_false_is_left_out(submit):
    """`--exclusive=False` would be an error, or worse, a yes."""
    submit.values["cluster"] |= {"kind": "slurm", "sbatch": {"exclusive": False}}
    assert "exclusive" not in options(submit.dry(slurm=True)["stages"][0]["sbatch"])
