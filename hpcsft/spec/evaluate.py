"""The `evaluate` section: how good it has become."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from hpcsft.spec.base import Name, Path, Section


class GenerationSpec(Section):
    """How answers are generated."""

    max_new_tokens: PositiveInt = 512
    """Longest answer, in tokens."""

    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy; above, sampling with the spec's seed."""

    prompt_style: Literal["template", "raw"] = "template"
    """template gives the model exactly the prefix that training saw; raw the bare instruction."""

    batch_size: PositiveInt = 16
    """Prompts that are answered together."""


class JudgeSpec(Section):
    """Who compares an answer with the reference."""

    kind: Literal["openai", "local"] = "openai"
    """An OpenAI-compatible endpoint, or a Hugging Face model on a compute node."""

    model: Annotated[str, Field(min_length=1)] = "gpt-3.5-turbo-instruct"
    """Model name at the endpoint, or folder of the local judge."""

    api: Literal["auto", "chat", "completions"] = "auto"
    """Which API the endpoint speaks; auto takes legacy completions for gpt-3.5-turbo-instruct and its like."""

    base_url: str | None = None
    """Endpoint, such as http://localhost:8000/v1; null is the client's own default."""

    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key. The key itself is never written anywhere."""

    orders: Literal["both", "random", "reference_first"] = "both"
    """both judges every pair twice, with either answer first; random draws the order as AlpacaEval does."""

    max_concurrency: PositiveInt = 8
    """Requests under way at once."""

    batch_size: PositiveInt = 8
    """Comparisons that a local judge computes together."""

    @field_validator("api_key_env")
    @classmethod
    def _a_name_not_a_key(cls, value: str) -> str:
        if not value.replace("_", "").isalnum() or value.upper() != value:
            raise ValueError("the name of an environment variable in capitals, never the key itself")
        return value


class EvaluateSpec(Section):
    """Answers to held-out prompts, compared with reference answers."""

    prompts: Path
    """JSON array in AlpacaEval's format: instruction, output (the reference answer), generator, dataset."""

    checkpoints: Literal["all"] | Annotated[list[Name], Field(min_length=1)] = "all"
    """all is the base model and every epoch; or a list of base, epoch-1, epoch-2, ..."""

    shards: PositiveInt = 4
    """Size of the job array that generates."""

    generation: GenerationSpec = GenerationSpec()
    """How answers are generated."""

    judge: JudgeSpec = JudgeSpec()
    """Who compares them."""

    @model_validator(mode="before")
    @classmethod
    def _needs_prompts(cls, value: object) -> object:
        if isinstance(value, dict) and not value:
            raise ValueError("prompts is missing; leave the section out for a run without evaluation")
        return value
