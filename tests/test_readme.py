"""What the README and the docs show works as written."""

import re
from pathlib import Path

import pytest

from tests.algos.scripts import evaluate, ppo, train

ROOT = Path(__file__).resolve().parents[1]
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


@pytest.mark.parametrize("code", blocks("bash"))
def test_every_script_that_a_command_names_is_there_and_takes_the_flags(code):
    for script in re.findall(r"python ((?:algos|benchmarks)/\w+\.py)", code):
        source = (ROOT / script).read_text()
        for line in re.findall(rf"{script} (.*?)(?:#|$)", code, flags=re.MULTILINE):
            for flag in re.findall(r"--([a-z-]+)", line):
                assert flag == "help" or f"    {flag.replace('-', '_')}:" in source, flag
