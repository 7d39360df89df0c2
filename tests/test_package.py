"""The wheel, installed into an environment of its own outside the checkout."""

import json
import os
import re
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

    def run(line, cwd):
        """Run a line as a shell does."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment["PATH"] = f"{folder / 'bin'}:{environment['PATH']}"
        done = subprocess.run(line, shell=True, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500)
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
    (tmp_path / "readme.py").write_text(FROM_README)
    assert float(installed("python readme.py", tmp_path)) == pytest.approx(1)


def test_the_package_is_the_wheels_and_not_the_checkouts(installed, tmp_path):
    where = installed(f"python -c 'import {PACKAGE}; print({PACKAGE}.__file__)'", tmp_path)
    assert str(ROOT) not in where


def test_the_command_asks_and_finds_its_prompts(installed, tmp_path):
    told = installed("lvlm2p ask MiniGrid-LavaGapS5-v0 --model embedded/minigrid-planner", tmp_path)
    assert "advice" in told


def test_the_page_on_ones_own_environment_is_followed_from_the_first_line_to_the_last(installed, tmp_path):
    page = (ROOT / "docs" / "own_environment.md").read_text()
    for language, block in re.findall(r"```(\w+)\n(.*?)```", page, flags=re.DOTALL):
        if language == "console":
            for line in block.splitlines():
                installed(line.removeprefix("$ "), tmp_path)
        else:
            name = re.search(r"# ([\w/]+\.\w+)", block.partition("\n")[0])[1]
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(block)

    def success(name):
        (student,) = tmp_path.glob(f"runs/*{name}*/student.json")
        return json.loads(student.read_text())["sampled"]["success"]["value"]

    assert success("taught") > 0.8  # measured: 1.00
    assert success("alone") < 0.5  # measured: 0.12
    assert (tmp_path / "courier.gif").stat().st_size > 10_000
    rules = (tmp_path / "after" / "1-analysis-01-system.txt").read_text()
    assert "The blue square is the courier" in rules
    assert "move one cell up" in (tmp_path / "after" / "2-action-01-system.txt").read_text()
