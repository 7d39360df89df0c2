"""Code of others: what a user types is imported, what somebody's file names is imported only with --trust."""

import sys

import pytest

from lvlm2p_wrappers.cli import main

LAVA = "MiniGrid-LavaGapS5-v0"
PLANNER = "embedded/minigrid-planner"
MODULE = """
from pathlib import Path
import gymnasium
from minigrid.envs import EmptyEnv
Path("imported").touch()
gymnasium.register("Strange-Maze-v0", entry_point=lambda **options: EmptyEnv(size=5, **options))
"""
EXAMPLE = """
[[example]]
picture = { env_id = "strange_envs:Strange-Maze-v0" }
probabilities = { left = 0, right = 0, forward = 1, pickup = 0, drop = 0, toggle = 0, done = 0 }
"""


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    """A prompt folder of a stranger, whose example names a module that leaves a mark when it is imported."""
    (tmp_path / "strange_envs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "prompts_of_others"
    folder.mkdir()
    (folder / "set.toml").write_text("stages = 1\nexample_pictures = 1\n")
    (folder / "examples.toml").write_text(EXAMPLE)
    yield folder
    sys.modules.pop("strange_envs", None)
    sys.modules["gymnasium"].registry.pop("Strange-Maze-v0", None)


COMMANDS = {
    "preview": ["preview", LAVA],
    "ask": ["ask", LAVA, "--model", PLANNER],
    "estimate": ["estimate", LAVA, "--model", PLANNER, "--total-timesteps", "5"],
    "evaluate": ["evaluate", LAVA, "--model", PLANNER, "--states", "1", "--episodes", "0"],
    "compare": ["compare", "minigrid", "prompts_of_others", "--model", PLANNER, "--env", LAVA, "--states", "1"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_module_that_a_prompt_folder_names_is_imported_only_with_trust(words, prompts, tmp_path, capsys):
    """A prompt folder from somebody else runs its code as soon as a command reads it."""
    words = [*words, *([] if "compare" in words else ["--prompts", str(prompts)])]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "names the module strange_envs" in line and "--trust" in line
    assert not (tmp_path / "imported").exists()
    assert main([*words, "--trust"]) == 0
    assert (tmp_path / "imported").exists()


def test_a_module_that_the_user_types_is_his_word(prompts, tmp_path, capsys):  # noqa: ARG001
    assert main(["preview", "strange_envs:Strange-Maze-v0"]) == 0
    assert (tmp_path / "imported").exists()
    assert "get to the green goal square" in capsys.readouterr().out


def test_a_module_that_is_not_there_is_named(prompts, capsys):
    (prompts / "examples.toml").write_text(EXAMPLE.replace("strange_envs", "no_such_module"))
    assert main(["preview", LAVA, "--prompts", str(prompts), "--trust"]) == 2
    assert "the module no_such_module that" in capsys.readouterr().err
