"""Python functions on the command line: as teachers, pictures and facts."""

import json
from pathlib import Path

import pytest

from lvlm2p_wrappers.cli import main

EXPERT = "python:tests.teacher.experts:upright"


def test_ask_shows_what_a_function_says_and_that_no_model_was_asked(capsys):
    assert main(["ask", "CartPole-v1", "--model", EXPERT, "--facts", "tests.teacher.experts:steps_left"]) == 0
    out = capsys.readouterr().out
    assert "push_right" in out
    assert "A Python function answered; no model was asked." in out
    assert "Wind" in out


def test_card_and_report_say_that_a_function_taught(capsys):
    assert main(["evaluate", "CartPole-v1", "--model", EXPERT, "--states", "4", "--episodes", "0", "--out", "e"]) == 0
    assert f"CartPole-v1, {EXPERT} (a Python function, no model)" in capsys.readouterr().out
    assert json.loads(Path("e/evaluation.json").read_text())["metrics"]["price"]["usd_per_label"] == 0
    assert main(["report", "e", "--out", "e.html"]) == 0
    assert f"<dd>{EXPERT} (a Python function, no model)</dd>" in Path("e.html").read_text()


@pytest.mark.parametrize("command", [["preview"], ["estimate", "--total-timesteps", "10"]])
def test_a_function_gets_no_messages_and_costs_nothing(command, capsys):
    assert main([*command, "CartPole-v1", "--model", EXPERT]) == 2
    assert "it gets no messages and costs nothing" in capsys.readouterr().err


def test_preview_shows_the_users_own_picture_and_facts(capsys):
    own = ["--render", "tests.teacher.experts:large", "--facts", "tests.teacher.experts:steps_left"]
    assert main(["preview", "MiniGrid-Empty-5x5-v0", *own, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["picture"]["width"], shown["facts"]["Wind"]) == (640, "none")
    assert "Wind: none" in shown["stages"][0]["messages"][-1]["text"]


def test_a_defect_in_a_function_is_told_in_one_line(capsys):
    assert main(["ask", "CartPole-v1", "--model", "python:tests.teacher.experts:raising"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "raised KeyError" in told
