"""Guards that no job asks the hub or holds the user's token, and that a user can still have it otherwise."""

from __future__ import annotations

from hpcsft.hub.fetched import Fetched, FetchedData
from hpcsft.hub.offline import go_offline


def test_jobs_are_offline_and_without_a_token():
    environment = {"HF_TOKEN": "hf_x", "HUGGING_FACE_HUB_TOKEN": "hf_x", "HF_HOME": "/h"}
    go_offline(environment, Fetched())
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["HF_HOME"] == "/h"
    assert not [name for name, value in environment.items() if value == "hf_x"]


def test_the_users_word_counts():
    environment = {"HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_x"}
    go_offline(environment, Fetched())
    assert environment["HF_HUB_OFFLINE"] == "0"
    assert "HF_TOKEN" not in environment
    assert environment["HF_HUB_DISABLE_IMPLICIT_TOKEN"] == "1"


def test_data_sets_are_read_where_they_were_prepared():
    data = FetchedData(
        revision="0" * 40, config="default", cache="/shared/datasets", folder="/shared/datasets/x", size_bytes=1
    )
    environment = {"HF_DATASETS_CACHE": "/elsewhere"}
    go_offline(environment, Fetched(data={"hub:a/b": data}))
    assert environment["HF_DATASETS_CACHE"] == "/shared/datasets"
