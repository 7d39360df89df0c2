"""The wheel, installed into an environment of its own outside the checkout."""

import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "lvlm2p_wrappers"
FROM_README = """
import gymnasium as gym
from lvlm2p_wrappers import TeacherWrapper

env = TeacherWrapper(gym.make("MiniGrid-LavaGapS7-v0"), model="embedded/minigrid-planner")
obs, info = env.reset(seed=0)
print(info["teacher_probs"].sum())
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs a command of an environment that has the wheel, what it depends on, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    # The dependencies are those of this environment; its own .pth files, the checkout's among them, do not count there.
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))

    def run(*words, cwd):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [folder / "bin" / words[0], *map(str, words[1:])]
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_wheel_carries_prompt_sets_scripts_templates_and_the_type_marker(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())

    def files(folder, pattern="*"):
        return [path.relative_to(folder).as_posix() for path in folder.rglob(pattern) if path.is_file()]

    assert {f"{PACKAGE}/_prompts/{name}" for name in files(ROOT / "prompts")} <= names
    assert {f"{PACKAGE}/_algos/{name}" for name in files(ROOT / "algos", "*.py")} <= names
    assert {f"{PACKAGE}/report/templates/{name}" for name in files(ROOT / PACKAGE / "report" / "templates")} <= names
    assert f"{PACKAGE}/py.typed" in names
    assert not [name for name in names if name.startswith(("prompts/", "tests/", "algos/"))]


def test_the_readmes_first_lines_work(installed, tmp_path):
    assert float(installed("python", "-c", FROM_README, cwd=tmp_path)) == pytest.approx(1)


def test_the_package_is_the_wheels_and_not_the_checkouts(installed, tmp_path):
    where = installed("python", "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)", cwd=tmp_path)
    assert str(ROOT) not in where


def test_the_command_asks_and_finds_its_prompts(installed, tmp_path):
    told = installed("lvlm2p", "ask", "MiniGrid-LavaGapS5-v0", "--model", "embedded/minigrid-planner", cwd=tmp_path)
    assert "advice" in told


def test_a_script_that_was_copied_trains(installed, tmp_path):
    installed("lvlm2p", "scripts", "mine", cwd=tmp_path)
    flags = ("--total-timesteps=512", "--env-id=MiniGrid-Empty-5x5-v0")
    told = installed("python", "mine/ppo_lvlm2p_replay.py", *flags, cwd=tmp_path)
    assert '"global_step": 512' in told
    assert list(tmp_path.glob("runs/*/student.pt"))
