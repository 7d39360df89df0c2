import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvlm2p_wrappers.errors import BadReplyError
from lvlm2p_wrappers.replies import SUM_RANGE, distribution, find_json, read_action, read_analysis
from lvlm2p_wrappers.schemas import GridAnalysis01, SummaryAnalysis, action_schema, analysis_schema

ACTIONS = ["left", "right", "forward"]
GRID = {
    "agent_row": 1,
    "agent_column": 2,
    "heading": "up",
    "carrying": "nothing",
    "targets": [{"what": "green goal", "row": 5, "column": 5}],
    "hazards": [],
    "obstacles": [],
    "summary": "The goal is below.",
}


def reply(**probabilities):
    return json.dumps({"reasoning": "so", "probabilities": probabilities})


def advice(text):
    return distribution(read_action(text, ACTIONS), ACTIONS)


@pytest.mark.parametrize(
    "schema", [analysis_schema(GridAnalysis01), analysis_schema(SummaryAnalysis), action_schema(ACTIONS)]
)
def test_every_schema_has_the_shape_that_every_provider_takes(schema):
    def objects(node):
        if isinstance(node, dict):
            if node.get("type") == "object":
                yield node
            for value in node.values():
                yield from objects(value)

    found = list(objects(schema))
    assert found
    for node in found:
        assert node["additionalProperties"] is False
        assert set(node["required"]) == set(node["properties"])
    assert not {"$defs", "$ref", "anyOf", "title", "minimum"} & set(json.dumps(schema).replace('"', " ").split())


@pytest.mark.parametrize(
    "text",
    [
        reply(left=0.2, right=0.3, forward=0.5),
        "```json\n" + reply(left=0.2, right=0.3, forward=0.5) + "\n```",
        "Here is my answer:\n" + reply(left=0.2, right=0.3, forward=0.5) + "\nGood luck!",
        reply(left=2e-1, right=0.3, forward=0.5),
        '{"probabilities": {"left": 0.2, "right": 0.3, "forward": 0.5}}',
    ],
)
def test_a_usable_reply_becomes_its_distribution(text):
    assert np.allclose(advice(text), [0.2, 0.3, 0.5])
    assert advice(text).dtype == np.float32


@pytest.mark.parametrize("total", [0.97, 1.3, *SUM_RANGE])
def test_a_sum_near_one_is_renormalised(total):
    probs = advice(reply(left=total / 2, right=total / 4, forward=total / 4))
    assert np.allclose(probs, [0.5, 0.25, 0.25])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("I would go left.", "json"),
        ("", "json"),
        ('{"probabilities": {"left": 0.2,', "json"),
        (reply(left=1, right=0, forward=0) + reply(left=0, right=1, forward=0), "json"),
        ('{"probabilities": {"left": NaN, "right": 0, "forward": 1}}', "json"),
        ('{"probabilities": {"left": Infinity, "right": 0, "forward": 1}}', "json"),
        ('{"probabilities": {"left": 0.5, "left": 0.1, "right": 0, "forward": 0.5}}', "json"),
        ("[" * 100_000 + "{", "too_long"),
        ("{" * 50_000, "json"),
        ('{"probabilities": ' + '{"left": ' * 900 + "1" + "}" * 901, "keys"),
        (reply(left=1, right=0, forward=0) + ' No, wait: {"reasoning": "it is cut', "json"),
        (reply(left=0.5, right=0.5), "keys"),
        (reply(left=0.5, right=0.2, forward=0.2, jump=0.1), "keys"),
        ('{"left": 0.5, "right": 0.2, "forward": 0.3}', "keys"),
        ('{"probabilities": [0.5, 0.2, 0.3]}', "keys"),
        (reply(left="0.5", right=0.2, forward=0.3), "number"),
        (reply(left=True, right=0, forward=0), "number"),
        (reply(left=None, right=0.5, forward=0.5), "number"),
        (reply(left=-0.1, right=0.5, forward=0.6), "number"),
        ('{"probabilities": {"left": 1e999, "right": 0, "forward": 1}}', "json"),
        ('{"probabilities": {"left": 1' + "0" * 400 + ', "right": 0, "forward": 1}}', "number"),
        (reply(left=0, right=0, forward=0), "sum"),
        (reply(left=7, right=0, forward=0), "sum"),
        (reply(left=0.2, right=0.1, forward=0.1), "sum"),
    ],
)
def test_anything_else_is_a_bad_reply_that_says_what_is_wrong(text, kind):
    with pytest.raises(BadReplyError) as bad:
        read_action(text, ACTIONS)
    assert bad.value.kind == kind
    assert str(bad.value)
    assert bad.value.replies[0] == text[: len(bad.value.replies[0])]


@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda leaf: st.lists(leaf) | st.dictionaries(st.sampled_from([*ACTIONS, "probabilities", "x"]), leaf),
    ).map(json.dumps)
)
def test_no_reply_yields_anything_but_a_distribution_or_a_bad_reply(text):
    try:
        probs = advice(text)
    except BadReplyError:
        return
    assert probs.shape == (3,)
    assert (probs >= 0).all()
    assert math.isclose(probs.sum(), 1, abs_tol=1e-5)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_a_distribution_is_what_the_model_gave_up_to_its_sum(given_numbers):
    text = reply(**dict(zip(ACTIONS, given_numbers, strict=True)))
    total = math.fsum(given_numbers)
    if SUM_RANGE[0] <= total <= SUM_RANGE[1]:
        assert np.allclose(advice(text), np.array(given_numbers) / total, atol=1e-6)
    else:
        with pytest.raises(BadReplyError, match="sum to"):
            advice(text)


def test_an_analysis_of_the_grid_comes_back_as_given():
    assert json.loads(read_analysis(json.dumps(GRID), GridAnalysis01)) == GRID


@pytest.mark.parametrize(
    "change", [{"heading": "north"}, {"agent_row": "1"}, {"agent_row": None}, {"extra": 1}, {"targets": [{"row": 1}]}]
)
def test_an_analysis_of_another_form_is_a_bad_reply(change):
    with pytest.raises(BadReplyError, match=next(iter(change))):
        read_analysis(json.dumps(GRID | change), GridAnalysis01)


def test_braces_in_prose_do_not_make_a_guess():
    with pytest.raises(BadReplyError):
        find_json('I first wrote {"a": 1} and then {"a": 2}')
