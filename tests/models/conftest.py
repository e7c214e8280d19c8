"""One thread, as in tests/evaluate."""

from tests.evaluate.conftest import one_thread  # noqa: F401
