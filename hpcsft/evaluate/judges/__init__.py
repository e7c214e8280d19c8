"""Who compares two answers: an OpenAI-compatible endpoint, Anthropic's, or a local Hugging Face model.

    settings   what the spec, a template file or an AlpacaEval evaluator say, in one form     pure
    question   the text of a question        parsers   the verdict in a reply                 pure
    cost       estimate, cap                                                                  pure
    pool       requests: threads, retries, pauses, the circuit breaker
    *_judge    one kind of judge each        journal   every reply, kept at once

Judging runs on login nodes too: only the local judge loads torch, and only when it is made.
"""

from __future__ import annotations

import os

from hpcsft.errors import InputError
from hpcsft.evaluate.judges.protocol import Judge
from hpcsft.evaluate.judges.settings import judge_settings, key_problem
from hpcsft.key_file import KeyFileError, read_key
from hpcsft.spec.evaluate import JudgeSpec

__all__ = ["Judge", "check_judge_files", "judge_identity", "judge_name", "key_problem", "make_judge"]


def make_judge(spec: JudgeSpec) -> Judge:
    """The judge that `spec` describes.

    Waiting if a package or a key is missing. InputError if the template, the evaluator or the local model is no good.
    """
    if spec.kind == "local":
        from hpcsft.evaluate.judges.local_judge import LocalJudge

        return LocalJudge(spec, judge_name(spec))
    if spec.kind == "anthropic":
        from hpcsft.evaluate.judges.anthropic_judge import anthropic_judge

        return anthropic_judge(spec, judge_name(spec))
    from hpcsft.evaluate.judges.openai_judge import openai_judge

    return openai_judge(spec, judge_name(spec))


def judge_name(spec: JudgeSpec) -> str:
    """KIND/MODEL; of a local model the folder's name, of an AlpacaEval evaluator its own name there."""
    if spec.evaluator:
        return os.path.basename(os.path.normpath(spec.evaluator))
    return f"{spec.kind}/{os.path.basename(spec.model) if spec.kind == 'local' else spec.model}"


def judge_identity(spec: JudgeSpec) -> str:
    """Everything that a verdict depends on besides the two answers; part of the key of each verdict.

    InputError if the template or the evaluator cannot be read.
    """
    settings = judge_settings(spec)
    if spec.kind == "local":
        from hpcsft.evaluate.judges.local_judge import judge_dtype

        return settings.identity(dtype=judge_dtype())
    return settings.identity()


def check_judge_files(spec: JudgeSpec) -> None:
    """InputError if the template, the evaluator or the key's file that `spec` names cannot be used. Light, for login
    nodes."""
    judge_settings(spec)
    if spec.api_key_file and spec.kind != "local":
        try:
            read_key(spec.api_key_file)
        except KeyFileError as error:
            raise InputError(f"evaluate.judge.api_key_file: {error}", error.hint) from None
