"""The description and the page name every route, scope and code there is, and no other."""

import re

import pytest

from tests.support import ROOT
from tests.web.site import site_config
from worker.web.application import TAGS, Site
from worker.web.description import described
from worker.web.problems import CODES

PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
SYSTEMS = "".join(
    f'[job.{name}]\npython = "tests.sample_jobs:done"\n' for name in ("stats_update", "sync", "sync_games")
)
SOURCES = "\n".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "worker" / "web").rglob("*.py") if "pages" not in path.parts
)


@pytest.fixture
def schema(tmp_path):
    return described(Site(site_config(tmp_path, "postgresql://postgres@/none", jobs=SYSTEMS)).application)


def operations(schema):
    return {(verb.upper(), path): told for path, verbs in schema["paths"].items() for verb, told in verbs.items()}


def test_the_page_names_every_route_and_no_other(schema):
    named = set(re.findall(r"^\| `(GET|POST) (/[^`]*)` \| (?:read|enqueue|operate) \|", PAGE, re.MULTILINE))
    assert named == {*operations(schema), ("GET", "/openapi.json")}


def test_the_page_names_every_code_and_no_other():
    raised = {code for _, code in CODES.values()} | set(re.findall(r'Problem\(\s*\d{3}, "(\w+)"', SOURCES))
    raised |= {"method_not_allowed", "too_large", "not_found", "unreadable", "database_error"} - {"login"}
    table = PAGE.partition("## Errors")[2].partition("## Changes")[0]
    named = {code for line in table.splitlines() if re.match(r"\| \d", line) for code in re.findall(r"`(\w+)`", line)}
    assert named - {"Allow", "backlog"} == raised - {"login"}


def test_every_route_says_what_it_is_takes_and_answers(schema):
    tags = {tag["name"] for tag in TAGS}
    for (verb, path), told in operations(schema).items():
        assert told["summary"], path
        assert told["description"], path
        assert set(told["tags"]) <= tags
        assert {"401", "403", "422", "503"} <= set(told["responses"]), path
        assert [each for each in told["responses"] if each.startswith("2")], path
        assert all(answer["description"] for answer in told["responses"].values()), path
        assert all(parameter["schema"] for parameter in told.get("parameters", ())), path
        assert told["security"] == [{"key": []}], (verb, path)


def test_every_shape_is_described(schema):
    shapes = schema["components"]["schemas"]
    assert [name for name, shape in shapes.items() if not shape.get("description")] == []
    assert {"HTTPValidationError", "ValidationError"} & set(shapes) == set()
