"""``lvlm2p preview``: what would be sent, message by message, and that nobody is asked."""

import io
import json

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

from lvlm2p_wrappers import Teacher
from lvlm2p_wrappers.cli import main
from lvlm2p_wrappers.views import viewer, with_lines

LAVA = "MiniGrid-LavaGapS5-v0"
EMBEDDED = "embedded/minigrid-planner"


@pytest.fixture
def preview(capsys):
    """Runs ``lvlm2p preview``, which has to succeed, and returns what it prints."""

    def run(*args, code=0):
        assert main(["preview", *map(str, args)]) == code
        captured = capsys.readouterr()
        return captured.err if code else json.loads(captured.out) if "--json" in args else captured.out

    return run


def view_of(env_id, seed=0):
    env = gym.make(env_id)
    env.reset(seed=seed)
    return viewer(env).view()


def texts(shown):
    return [[message["text"] for message in stage["messages"]] for stage in shown["stages"]]


def test_it_shows_both_conversations_word_for_word_with_their_tokens(preview):
    printed, shown = preview(LAVA), preview(LAVA, "--json")
    prompts = Teacher("gemini/gemini-2.5-flash-lite", store=None).prompts(view_of(LAVA).env_info)
    question = prompts.analysis(view_of(LAVA))
    assert texts(shown)[0] == [message.text for message in question.messages]
    for line in question.messages[0].text.splitlines():
        assert f"  {line}".rstrip() in printed
    for stage in shown["stages"]:
        assert 0 < stage["prompt_tokens"]["low"] < stage["prompt_tokens"]["high"]
    assert f"{shown['stages'][0]['prompt_tokens']['low']:,.0f} to" in printed
    assert "85 to 1,200 tokens a picture" in printed


def test_nobody_is_asked_and_no_store_is_made(preview, provider, tmp_path):
    preview(LAVA, "--model", "openai/gpt-4o-mini")
    assert not provider.log
    assert not list(tmp_path.glob("store*"))


def test_a_placeholder_stands_for_an_analysis_that_nobody_has_made(preview):
    shown = preview(LAVA, "--json")
    assert [stage["placeholder"] for stage in shown["stages"]] == [False, True]
    assert "<the analysis, which nobody has made yet: agent_row, agent_column, heading, " in texts(shown)[1][1]
    assert "<the analysis, which nobody has made yet" in preview(LAVA)


def test_an_analysis_that_was_paid_for_is_quoted_from_the_store(preview):
    advice = Teacher(EMBEDDED).advise(view_of(LAVA))
    shown = preview(LAVA, "--model", EMBEDDED, "--json")
    assert f"Analysis: {advice.analysis}" in texts(shown)[1][1]
    assert [stage["answered_in_store"] for stage in shown["stages"]] == [True, True]
    assert not shown["stages"][1]["placeholder"]
    assert f"The store has an answer of {EMBEDDED} to this." in preview(LAVA, "--model", EMBEDDED)


def test_saving_writes_the_picture_and_every_message(preview, tmp_path):
    folder = tmp_path / "deep" / "preview"
    shown = preview(LAVA, "--seed", 3, "--save", folder, "--json")
    assert shown["files"] == [str(path) for path in [folder / "picture.png", *sorted(folder.glob("*.txt"))]]
    picture = Image.open(io.BytesIO((folder / "picture.png").read_bytes()))
    assert np.array_equal(np.asarray(picture), with_lines(view_of(LAVA, seed=3).picture).pixels)
    written = [path.read_text().removesuffix("\n") for path in sorted(folder.glob("*.txt"))]
    assert written == [text for stage in texts(shown) for text in stage]
    assert str(folder / "picture.png") in preview(LAVA, "--save", folder, "--force")
    assert "add --save DIR" in preview(LAVA)


def test_the_pictures_of_examples_are_saved_too(preview, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "set.toml").write_text("example_pictures = 2\nstages = 1")
    shown = preview(LAVA, "--prompts", tmp_path / "mine", "--save", tmp_path / "out", "--json")
    (stage,) = shown["stages"]
    assert [m["role"] for m in stage["messages"]] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [m["picture"] for m in stage["messages"]] == [False, True, False, True, False, True]
    names = [path.name for path in sorted((tmp_path / "out").glob("*.png"))]
    assert names == ["1-action-02-user.png", "1-action-04-user.png", "picture.png"]


def test_seed_and_random_steps_choose_the_moment_and_repeat_it(preview):
    digests = [
        preview("MiniGrid-Fetch-6x6-N2-v0", "--seed", seed, "--steps", steps, "--json")["picture"]["digest"]
        for seed, steps in ((0, 0), (1, 0), (0, 5), (0, 5))
    ]
    assert len(set(digests)) == 3
    assert digests[2] == digests[3]


def test_past_the_end_of_an_episode_the_next_one_is_shown(preview):
    assert "random steps" in preview("FrozenLake-v1", "--steps", 60)


def test_a_set_that_wants_the_last_actions_is_told_them(preview, tmp_path):
    (tmp_path / "set.toml").write_text("history = 3")
    shown = preview(LAVA, "--prompts", tmp_path, "--steps", 2, "--json")
    (told,) = (line for line in texts(shown)[0][1].splitlines() if line.startswith("Last actions, oldest first: "))
    assert len(told.split(": ")[1].split(", ")) == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["No-Such-v0"], "cannot be made"),
        (["Pendulum-v1"], "Discrete"),
        ([LAVA, "--prompts", "nowhere"], "there is no prompt folder 'nowhere'"),
        ([LAVA, "--model", "nonsense"], "names no provider"),
        ([LAVA, "--save", "/dev/null/x"], "give a folder that can be written"),
    ],
)
def test_a_mistake_in_what_was_given_is_named(preview, args, said):
    assert said in preview(*args, code=2)


@pytest.mark.parametrize("wrong", [["--seed", "-1"], ["--steps", "x"]])
def test_seed_and_steps_are_counted_from_0(wrong, capsys):
    assert main(["preview", LAVA, *wrong]) == 2
    assert "is not a whole number from 0 to" in capsys.readouterr().err
