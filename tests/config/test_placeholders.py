import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.config.placeholders import check, fill, names
from worker.errors import InvalidJob

COLUMNS = {"tenant_id": "t1", "correlation_id": None, "id": 7, "job_type": "stats"}
PAYLOAD = {"tags": ["a", "b"], "n": 1.5, "yes": True, "none": None, "text": "ä{n}", "tenant_id": "other"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{tags}", ["a", "b"]),
        ("{n}", 1.5),
        ("{none}", None),
        ("{id}", 7),
        ("{correlation_id}", None),
        ("{tenant_id}", "t1"),
        ("stats:{tenant_id}", "stats:t1"),
        ("{id}-{n}", "7-1.5"),
        ("is {yes} {none} {tags}", 'is true null ["a", "b"]'),
        ("{text}", "ä{n}"),
        ("<{text}>", "<ä{n}>"),
        ("{{tags}}", "{tags}"),
        ("{{{n}}}", "{1.5}"),
        ("plain", "plain"),
        ("", ""),
        (5, 5),
        ({"a": ["{id}", {"b": "{n}"}], "{id}": 1}, {"a": [7, {"b": 1.5}], "{id}": 1}),
    ],
)
def test_fill(template: object, filled: object) -> None:
    assert fill(template, COLUMNS, PAYLOAD) == filled


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{gone}", "unknown placeholder {gone}: the job has no such payload key"),
        ("x{gone}", "unknown placeholder {gone}: the job has no such payload key"),
        ({"a": ["{gone}"]}, "unknown placeholder {gone}: the job has no such payload key"),
    ],
)
def test_unknown(template: object, said: str) -> None:
    with pytest.raises(InvalidJob, match=re.escape(said)):
        fill(template, COLUMNS, PAYLOAD)


def test_a_column_is_never_taken_from_the_payload() -> None:
    with pytest.raises(InvalidJob, match="no such column"):
        fill("{tenant_id}", {}, PAYLOAD)


@pytest.mark.parametrize(
    ("template", "at"), [("{", 1), ("a}", 2), ("{}", 1), ("{ a }", 1), ("{a.b}", 1), ("{a}}", 4), ("{{a}", 4)]
)
def test_faulty_templates(template: str, at: int) -> None:
    with pytest.raises(ValueError, match=f"at character {at};"):
        names(template)
    with pytest.raises(ValueError, match="a lone"):
        check({"a": [template]})


def test_names() -> None:
    assert names("{a}{{b}}{c}{a}") == ("a", "c", "a")


@given(st.text())
def test_escaped_text_comes_back(text: str) -> None:
    template = text.replace("{", "{{").replace("}", "}}")
    check(template)
    assert fill(template, {}, {}) == text


@given(json_values)
def test_one_placeholder_keeps_its_value(value: object) -> None:
    assert fill("{x}", {}, {"x": value}) == value
    assert isinstance(fill("<{x}>", {}, {"x": value}), str)


@given(st.text(alphabet="{}ab_ "))
def test_a_template_that_passes_the_check_can_be_filled(template: str) -> None:
    try:
        check(template)
    except ValueError:
        return
    fill(template, {}, dict.fromkeys(names(template), 1))
