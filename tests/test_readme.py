"""What the README and the docs show works as written."""

import contextlib
import re
import shlex
import shutil
from pathlib import Path

import pytest
import tyro

from lvlm2p_wrappers.cli import main
from tests.algos import scripts as training
from tests.algos.scripts import evaluate, ppo, train

ROOT = Path(__file__).resolve().parents[1]
FOLLOWED = {"own_environment"}  # from the first line to the last, by tests/test_package.py
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language):
    for page in PAGES:
        for number, code in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)):
            marks = [pytest.mark.slow] if "student.onnx" in code else []
            yield pytest.param(code, id=f"{page.stem}-{number}", marks=marks)


@pytest.mark.parametrize("code", blocks("python"))
def test_every_python_block_runs(code):
    if "student.onnx" in code:
        _, run_dir = train(ppo, env_id="MiniGrid-LavaGapS7-v0", lam=0)
        evaluate.main(evaluate.Args(run_dir, episodes=2))
        (run_dir / "student.onnx").rename("student.onnx")
    exec(compile(code, "block", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_points_to_is_there(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def commands(program):
    """The lines of all shell blocks that call a program: (page, its words without prompt, folder and comment)."""
    for page in PAGES:
        for shell, code in re.findall(r"```(bash|console)\n(.*?)```", page.read_text(), flags=re.DOTALL):
            for line in code.splitlines():
                if shell == "console" and not line.startswith("$ "):
                    continue  # what a command printed
                line = line.removeprefix("$ ").removeprefix(".venv/bin/")
                if line.startswith(f"{program} ") and not line.startswith("python -"):
                    yield page, shlex.split(line, comments=True)


def scripts():
    for page, words in commands("python"):
        folder, _, name = words[1].rpartition("/")
        yield pytest.param(folder, name, words[2:], id=f"{page.stem}: {' '.join(words[1:])}")


@pytest.mark.parametrize(("folder", "name", "flags"), scripts())
def test_every_script_that_a_page_names_takes_the_flags_shown(folder, name, flags):
    if (ROOT / "algos" / name).exists():  # also a copy, in a folder of the reader's own
        args = training.load(name.removesuffix(".py")).Args
        with pytest.raises(SystemExit, match="0") if "--help" in flags else contextlib.nullcontext():
            tyro.cli(args, args=flags)
    else:
        source = (ROOT / folder / name).read_text()
        assert all(f"    {flag[2:].replace('-', '_')}:" in source for flag in flags if flag.startswith("--"))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page.stem not in FOLLOWED], ids=lambda page: page.stem)
def test_every_lvlm2p_command_of_a_page_runs(page, provider):  # noqa: ARG001 -- the paid models answer on this machine
    Path("my_prompts").mkdir()
    shutil.copy(ROOT / "prompts/minigrid/action.user.jinja", "my_prompts")
    shutil.copytree("my_prompts", "without_mission")
    assert main(["ask", "MiniGrid-Fetch-6x6-N2-v0", "--model", "embedded/minigrid-planner"]) == 0  # a store with calls
    shorter = {
        "evaluate": ["--states", "12", "--episodes", "1"],
        "compare": ["--states", "12"],
        "label": ["--states", "12"],
    }
    of_page = [words for found, words in commands("lvlm2p") if found == page]
    for students in {words[2] for words in of_page if words[1] == "play"}:
        _, run_dir = train(ppo, env_id="MiniGrid-LavaGapS7-v0", lam=0)
        evaluate.main(evaluate.Args(run_dir, episodes=2))
        run_dir.rename(students)
    for words in of_page:
        assert main([*words[1:], *shorter.get(words[1], [])]) == 0, words
