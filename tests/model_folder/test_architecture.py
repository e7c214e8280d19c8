"""Guards that only what writes text, and loads without code of its own, is queued."""

from __future__ import annotations

import importlib.machinery
from types import SimpleNamespace

import pytest

from hpcsft.model_folder.architecture import _listed, causal_language_models
from hpcsft.model_folder.check import check_model
from tests.model_folder.made import LLAMA, refused, write


@pytest.fixture
def fresh():
    """The list of models is read anew, before and after."""
    _listed.cache_clear()
    yield
    _listed.cache_clear()


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("bert", "BertForMaskedLM"),
        ("llama", "LlamaForSequenceClassification"),
        ("mistral", "MistralModel"),
        ("llava", "LlavaForConditionalGeneration"),
        ("vit", "ViTForImageClassification"),
        ("gemma3", "Gemma3ForConditionalGeneration"),
    ],
)
def test_a_model_that_is_no_causal_language_model(model_type, name, model):
    write(model, "config.json", {"model_type": model_type, "architectures": [name]})
    hint = refused(model, f"{name} is not (a causal language model|among the causal language models)")
    assert "LlamaForCausalLM" in hint


def test_a_class_that_is_not_named_is_that_of_the_type(model):
    write(model, "config.json", {"model_type": "gemma3"})
    refused(model, "Gemma3ForConditionalGeneration is not a causal language model")


@pytest.mark.parametrize("config", [{}, {"architectures": ["BertLMHeadModel"]}])
def test_an_encoder_sees_what_it_is_to_write(config, model):
    write(model, "config.json", {"model_type": "bert", **config})
    assert "is_decoder" in refused(model, r"(bert|BertLMHeadModel) is an encoder, whose tokens see those that follow")
    write(model, "config.json", {"model_type": "bert", **config, "is_decoder": True})
    check_model(str(model), "model.path")


def test_an_encoder_with_a_decoder(model):
    config = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}
    write(model, "config.json", config)
    hint = refused(model, "T5ForConditionalGeneration is an encoder with a decoder, which is trained in another way")
    assert "a causal language model is expected" in hint


def test_a_model_with_code_of_its_own(model):
    config = {"architectures": ["ChatGLMModel"], "model_type": "chatglm", "auto_map": {"AutoModel": "modeling.Model"}}
    write(model, "config.json", config)
    hint = refused(model, r"ChatGLMModel needs code of its own \(trust_remote_code\)")
    assert "never runs the code" in hint and "rows of a packed batch" in hint and "LlamaForCausalLM" in hint


def test_a_model_that_is_newer_than_transformers(model):
    write(model, "config.json", {"architectures": ["Llama9ForCausalLM"], "model_type": "llama9"})
    text = r"Llama9ForCausalLM is not among the causal language models that transformers has here \(model_type llama9\)"
    assert "a newer transformers may know it" in refused(model, text)


def test_a_config_that_names_no_model(model):
    write(model, "config.json", {"architectures": ["LlamaForCausalLM"]})
    assert "Hugging Face" in refused(model, r"config\.json: no model_type inside")


def test_baichuan_is_known_although_its_folder_brings_code(model):
    config = {"model_type": "baichuan", "architectures": ["BaichuanForCausalLM"], "hidden_size": 4096}
    config |= {"auto_map": {"AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM"}}
    write(model, "config.json", {**config, "max_position_embeddings": 4096})
    assert check_model(str(model), "model.path").architecture == "BaichuanForCausalLM"
    write(model, "config.json", {**config, "hidden_size": 5120})
    assert "7B" in refused(model, "Baichuan 13B is not supported")


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "Qwen3ForCausalLM"])
def test_causal_language_models_of_any_name(name, model):
    model_type = name.partition("LM")[0].partition("For")[0].lower()
    write(model, "config.json", {"model_type": model_type, "architectures": [name]})
    assert check_model(str(model), "model.path").architecture == name


def test_the_list_of_models_is_that_of_transformers(fresh):
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert causal_language_models() == {**MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "baichuan": "BaichuanForCausalLM"}


@pytest.mark.parametrize("source", [None, "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = load()", "x = ", "x = 1"])
def test_a_transformers_that_cannot_be_looked_into_refuses_nothing(source, fresh, model, tmp_path, monkeypatch):
    """What the list would tell is left to training; what the name tells is not."""
    found: SimpleNamespace | None = None
    if source is not None:
        (tmp_path / "models" / "auto").mkdir(parents=True)
        (tmp_path / "models" / "auto" / "modeling_auto.py").write_text(source)
        found = importlib.machinery.ModuleSpec("transformers", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    write(model, "config.json", {"architectures": ["Llama9ForCausalLM"], "model_type": "llama9"})
    assert check_model(str(model), "model.path").architecture == "Llama9ForCausalLM"
    write(model, "config.json", {**LLAMA, "architectures": ["BertForMaskedLM"]})
    refused(model, "BertForMaskedLM is not a causal language model")
