"""``lvlm2p ask``: one question, live, and all that came of it."""

import json
import re

import pytest

from lvlm2p_wrappers.cli import main
from tests.provider import FAULTS

LAVA = "MiniGrid-LavaGapS5-v0"
EMBEDDED = "embedded/minigrid-planner"
MODEL = "openai/gpt-4o-mini"


@pytest.fixture
def ask(capsys):
    """Runs ``lvlm2p ask`` and returns what it prints: with ``--json`` read, and with the errors where it fails."""

    def run(env_id, model, *args, code=0):
        assert main(["ask", env_id, "--model", model, *map(str, args)]) == code
        captured = capsys.readouterr()
        printed = json.loads(captured.out) if "--json" in args else captured.out
        return (printed, captured.err) if code else printed

    return run


def test_the_replies_the_analysis_and_the_advice_are_shown_with_what_they_took(ask, provider):
    printed = ask(LAVA, MODEL)
    assert len(provider.log) == 2
    for exchange in provider.log:
        assert exchange.answer in printed
        assert f"{exchange.tokens[0]:,} + {exchange.tokens[1]:,} tokens" in printed
    action = json.loads(provider.answers[1])
    for name, share in action["probabilities"].items():
        assert re.search(rf"  {name} +{share / sum(action['probabilities'].values()):.3f}", printed)
    assert "mission   avoid the lava and get to the green goal square" in printed
    assert "2 calls, $0.00" in printed
    assert "You read pictures of a grid world" not in printed


def test_verbose_shows_the_messages_that_were_sent(ask, provider):
    printed = ask(LAVA, MODEL, "--verbose")
    for exchange in provider.log:
        for turn in exchange.seen.turns:
            for line in turn.text.splitlines():
                assert f"  {line}".rstrip() in printed


def test_json_tells_all_of_it(ask, provider):
    told = ask(LAVA, MODEL, "--json", "--seed", 2)
    assert [exchange["reply"] for exchange in told["exchanges"]] == provider.answers
    assert told["exchanges"][0]["answer"] == json.loads(provider.answers[0])
    assert [message["picture"] for message in told["exchanges"][1]["messages"]] == [None, told["picture"]["digest"]]
    assert sum(told["probs"].values()) == pytest.approx(1)
    assert told["cost_usd"] == pytest.approx(provider.cost_usd)
    assert (told["calls"], told["error"], told["seed"]) == (2, None, 2)


def test_an_answer_in_the_store_is_shown_as_such_and_not_asked_for_again(ask, provider):
    first, again = ask(LAVA, MODEL), ask(LAVA, MODEL, "--json")
    assert "from the store" not in first
    assert [exchange["from_store"] for exchange in again["exchanges"]] == [True, True]
    assert (again["calls"], again["cost_usd"]) == (0, 0)
    assert again["exchanges"][0]["prompt_tokens"] == provider.log[0].tokens[0]
    printed = ask(LAVA, MODEL)
    assert "stage 1, analysis: from the store (then: " in printed
    assert "Nobody was asked: it was all in the store" in printed
    assert len(provider.log) == 2


def test_another_store_asks_anew(ask, provider, tmp_path):
    for name in ("one.sqlite", "two.sqlite"):
        ask(LAVA, MODEL, "--store", tmp_path / name)
    assert len(provider.log) == 4


def test_after_an_edit_of_the_action_template_only_the_analysis_is_out_of_the_store(ask, provider, tmp_path):
    ask(LAVA, MODEL)
    (tmp_path / "action.user.jinja").write_text("{{ mission }} {{ analysis }}")
    told = ask(LAVA, MODEL, "--prompts", tmp_path, "--json")
    assert [exchange["from_store"] for exchange in told["exchanges"]] == [True, False]
    assert len(provider.log) == 3


def test_a_reply_that_stays_bad_is_shown_raw_with_the_reason_and_exit_code_1(ask, provider):
    provider.faults = lambda seen: FAULTS["missing_action"] if seen.asks_for_an_action else None
    printed, complaint = ask(LAVA, MODEL, code=1)
    assert provider.log[-1].answer in printed
    assert "bad reply: keys: no probability for" in printed
    assert "no probability for" in complaint
    told, _ = ask(LAVA, MODEL, "--json", code=1)
    assert told["error"]["kind"] == "keys"
    assert told["probs"] is None
    assert [exchange["outcome"] for exchange in told["exchanges"]] == ["ok", "bad_reply"]


def test_where_nothing_comes_back_it_says_why(ask, provider, monkeypatch):
    monkeypatch.setattr("lvlm2p_wrappers.client.provider_errors.FIRST_PAUSE_S", 0.01)
    provider.faults = lambda _: FAULTS["503"]
    printed, complaint = ask(LAVA, MODEL, code=1)
    assert "no reply: " in printed
    assert complaint.startswith("lvlm2p: openai/gpt-4o-mini")


def test_a_budget_that_is_too_small_asks_nobody(ask, provider):
    told, complaint = ask(LAVA, MODEL, "--budget-usd", "0.000001", "--json", code=1)
    assert not provider.log
    assert told["error"]["kind"] == "budget"
    assert "budget" in complaint


def test_a_missing_key_is_the_users_mistake(ask):
    _, complaint = ask(LAVA, MODEL, code=2)
    assert "OPENAI_API_KEY" in complaint


def test_what_a_model_says_cannot_move_the_cursor(ask, provider):
    provider.answer = lambda seen: (
        '{"summary": "\\u001b[2J[bold]hi[/]\\u202e"} \x1b[2J' if not seen.asks_for_an_action else "\x1b]0;title\x07"
    )
    printed, complaint = ask("FrozenLake-v1", MODEL, code=1)
    assert not {"\x1b", "\x07", "\u202e"} & set(printed + complaint)
    assert "[bold]hi[/]" in printed


def test_saving_writes_picture_messages_and_replies(ask, tmp_path):
    ask(LAVA, EMBEDDED, "--save", tmp_path / "asked")
    names = [path.name for path in sorted((tmp_path / "asked").iterdir())]
    stages = [f"{n}-{stage}-0{i}-{role}.txt" for n, stage in ((1, "analysis"), (2, "action"))
              for i, role in ((1, "system"), (2, "user"), (3, "reply"))]  # fmt: skip
    assert names == [*stages, "picture.png"]
    assert json.loads((tmp_path / "asked" / "2-action-03-reply.txt").read_text())["probabilities"]


def test_the_embedded_teacher_answers_as_in_a_training_run(ask, tmp_path):
    (tmp_path / "set.toml").write_text("stages = 1")
    told = ask(LAVA, EMBEDDED, "--prompts", tmp_path, "--json")
    assert [exchange["stage"] for exchange in told["exchanges"]] == ["action"]
    assert told["probs"].keys() == {"turn_left", "turn_right", "forward", "pickup", "drop", "toggle", "done"}
