"""The `evaluate` section: how good it has become."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from hpcsft.secrets import holds_credentials
from hpcsft.spec.base import Name, Path, Section

Share = Annotated[float, Field(ge=0, le=1)]


class GenerationSpec(Section):
    """How answers are generated."""

    max_new_tokens: PositiveInt = 512
    """Longest answer, in tokens."""

    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy; above, sampling with the spec's seed, each prompt with a draw of its own."""

    top_k: NonNegativeInt = 0
    """Sample among so many of the likeliest tokens only; 0 for all."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample among the likeliest tokens that together have this probability."""

    prompt_style: Literal["template", "raw"] = "template"
    """template gives the model exactly the prefix that training saw; raw the bare instruction."""

    stop: list[Annotated[str, Field(min_length=1)]] | None = None
    """Texts that end an answer, besides the end token. null: what begins the next user's turn in the template."""

    batching: Literal["auto", "sorted", "continuous"] = "auto"
    """sorted answers prompts of like length together; continuous is transformers' own way, for GPUs; auto chooses."""

    batch_size: PositiveInt = 16
    """Prompts that are answered together; continuous batching on a GPU takes as many as its memory holds."""

    @model_validator(mode="after")
    def _sampling(self) -> GenerationSpec:
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise ValueError("top_k and top_p are for sampling: give a temperature above 0, or leave them out")
        if self.temperature > 0 and self.batching == "continuous":
            raise ValueError('what continuous batching samples would hang on its schedule: use batching "sorted"')
        return self


class ChecksSpec(Section):
    """Shares of answers with something wrong, from 0 to 1, above which no judge is paid unless it is forced."""

    echo: Share = 0.2
    """Answers that repeat the prompt."""

    empty: Share = 0.2
    """Answers without text."""

    leftover: Share = 0.2
    """Answers with markers of a template in them."""

    loop: Share = 1.0
    """Answers that end in a loop; base models do that."""

    cut: Share = 1.0
    """Answers that were cut at max_new_tokens; base models do that."""


class PriceSpec(Section):
    """What the judge costs, in US dollars per million tokens."""

    input: Annotated[float, Field(ge=0)]
    """A million tokens of questions."""

    output: Annotated[float, Field(ge=0)]
    """A million tokens of replies."""


class JudgeSpec(Section):
    """Who compares an answer with the reference."""

    kind: Literal["openai", "anthropic", "local"] = "openai"
    """An OpenAI-compatible endpoint, Anthropic's, or a Hugging Face model on a compute node."""

    model: Annotated[str, Field(min_length=1)] = "gpt-3.5-turbo-instruct"
    """Model name at the endpoint; of a local judge its folder, or hub:OWNER/NAME[@REVISION]."""

    api: Literal["auto", "chat", "completions"] = "auto"
    """Which API the endpoint speaks; auto takes legacy completions for gpt-3.5-turbo-instruct and its like."""

    base_url: str | None = None
    """Endpoint, such as http://localhost:8000/v1, without a key in it; null is the client's own default."""

    api_key_env: str | None = None
    """Name of the environment variable that holds the key; null is OPENAI_API_KEY or ANTHROPIC_API_KEY. The key itself
    is never written anywhere by hpcsft; Slurm keeps the environment of a job, this variable of the judge's with it."""

    api_key_file: Path | None = None
    """File that holds the key and nothing else, and that nobody but its owner can read (mode 0600); instead of
    api_key_env. It is read where the judge runs, and never copied."""

    template: Path | None = None
    """File with {instruction}, {output_1} and {output_2} that makes the judge reply `Output (a)` or `Output (b)`;
    null is the built-in question."""

    evaluator: Path | None = None
    """Folder of an AlpacaEval evaluator, with its configs.yaml: its prompt, model, parameters and parser are taken."""

    orders: Literal["both", "random", "reference_first"] = "both"
    """both judges every pair twice, with either answer first; random draws the order as AlpacaEval does."""

    order_seed: NonNegativeInt = 0
    """Seed of that draw; AlpacaEval's is 0."""

    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Temperature of the judge's replies."""

    max_tokens: PositiveInt = 50
    """Longest reply, in tokens."""

    max_unparsed: PositiveInt = 3
    """How often a pair is asked about whose replies hold no verdict, or whose requests all fail while others are
    answered; then it is counted as one without a verdict."""

    max_concurrency: PositiveInt = 8
    """Requests under way at once."""

    max_tries: PositiveInt = 6
    """How often a request is tried that the endpoint refuses for now, or does not answer."""

    timeout_s: PositiveFloat = 120.0
    """Patience with one request."""

    price: PriceSpec | None = None
    """What the endpoint costs, for the estimate and the cap."""

    max_cost_usd: PositiveFloat | None = None
    """No more than this is spent; needs price."""

    batch_size: PositiveInt = 8
    """Comparisons that a local judge computes together."""

    @field_validator("api_key_env")
    @classmethod
    def _a_name_not_a_key(cls, value: str | None) -> str | None:
        if value is not None and (not value.replace("_", "").isalnum() or value.upper() != value):
            raise ValueError("the name of an environment variable in capitals, never the key itself")
        return value

    @field_validator("api_key_file")
    @classmethod
    def _a_path_not_a_key(cls, value: str | None) -> str | None:
        if value is not None and "/" not in value:
            raise ValueError("the path of a file with a / in it, such as ~/.config/judge.key, never the key itself")
        return value

    @field_validator("base_url")
    @classmethod
    def _an_address_without_a_key(cls, value: str | None) -> str | None:
        if value is not None and holds_credentials(value):
            raise ValueError("an address without user, password or key: the key is for api_key_file or api_key_env")
        return value

    @property
    def key_variable(self) -> str:
        """The environment variable that holds the key."""
        return self.api_key_env or ("ANTHROPIC_API_KEY" if self.kind == "anthropic" else "OPENAI_API_KEY")

    @model_validator(mode="after")
    def _fits(self) -> JudgeSpec:
        if self.api_key_env and self.api_key_file:
            raise ValueError("api_key_env and api_key_file: the key is in one of them; leave the other out")
        if self.template and self.evaluator:
            raise ValueError("template and evaluator: an evaluator brings its own template; leave one out")
        if self.kind == "local" and self.evaluator:
            raise ValueError("evaluator: AlpacaEval's evaluators are for endpoints; use kind openai or anthropic")
        if self.max_cost_usd and not self.price:
            raise ValueError('max_cost_usd needs price: {"input": ..., "output": ...} in US dollars per million tokens')
        return self


class EvaluateSpec(Section):
    """Answers to held-out prompts, compared with reference answers."""

    prompts: Path
    """JSON array in AlpacaEval's format: instruction, output (the reference answer), generator, dataset."""

    checkpoints: Literal["all"] | Annotated[list[Name], Field(min_length=1)] = "all"
    """all is the base model and every epoch; or a list of base, epoch-1, epoch-2, ..."""

    outputs: dict[Name, Path] = {}
    """Other models' answers to the same prompts, judged alike: names and model_outputs.json in AlpacaEval's format."""

    shards: PositiveInt = 4
    """Size of the job array that generates."""

    generation: GenerationSpec = GenerationSpec()
    """How answers are generated."""

    checks: ChecksSpec = ChecksSpec()
    """What is wrong with too many answers to pay a judge for them."""

    judge: JudgeSpec = JudgeSpec()
    """Who compares them."""

    leaderboards: list[Path] = []
    """leaderboard.csv files in AlpacaEval's format whose rows the report shows beside this run's."""

    @model_validator(mode="before")
    @classmethod
    def _needs_prompts(cls, value: object) -> object:
        if isinstance(value, dict) and not value:
            raise ValueError("prompts is missing; leave the section out for a run without evaluation")
        return value
