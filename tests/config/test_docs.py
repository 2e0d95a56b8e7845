"""The page of settings is made from the models. To write it anew: WRITE_DOCS=1 pytest tests/config/test_docs.py"""

import os
from pathlib import Path

from tests.config.reference import reference
from worker.config import Config, JobType, shape

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_page_is_made_from_the_models() -> None:
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(reference(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == reference()


def test_page_lists_every_key() -> None:
    page = PAGE.read_text(encoding="utf-8")
    keys = {*shape.keys(Config), *shape.keys(JobType)}
    assert [key for key in keys if f"| `{key}` |" not in page] == []


def test_every_key_says_what_it_is_for() -> None:
    assert [
        key for model in (Config, JobType) for key, field in shape.keys(model).items() if not field.description
    ] == []
