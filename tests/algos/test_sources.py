"""The scripts are files to be read and copied: what they share is the same text, and every flag is explained."""

import ast
import dataclasses
from pathlib import Path

import pytest

from tests.algos.scripts import a2c, evaluate, ppo

OWN = {"Args", "Batch", "make_batch", "ppo_loss", "a2c_loss", "update"}


def sources(script):
    """The text of every function, class and named tuple of a script, by its name."""
    text = Path(script.__file__).read_text()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = ast.get_source_segment(text, node)
        elif isinstance(node, ast.Assign) and node.targets[0].id != "ALGO":
            found[node.targets[0].id] = ast.get_source_segment(text, node)
    return found


def test_both_algorithms_share_all_but_their_own_parts_literally():
    ours, theirs = sources(ppo), sources(a2c)
    assert ours.keys() | theirs.keys() > OWN
    assert ours.keys() - OWN == theirs.keys() - OWN
    for name in ours.keys() - OWN:
        assert ours[name] == theirs[name], name


def test_the_evaluation_has_the_student_and_its_env_literally_from_the_algorithms():
    ours, theirs = sources(evaluate), sources(ppo)
    copied = ours.keys() & theirs.keys() - {"Args", "main", "cli"}
    assert copied == {"make_env", "layer_init", "Agent"}
    for name in copied:
        assert ours[name] == theirs[name], name


def test_the_flags_around_the_teacher_are_the_same_for_both_algorithms():
    of_teacher = [sources(script)["Args"].split("    model: str")[1].split("    def ")[0] for script in (ppo, a2c)]
    assert of_teacher[0] == of_teacher[1]
    assert "resume" in of_teacher[0]


@pytest.mark.parametrize("script", [ppo, a2c, evaluate], ids=["ppo", "a2c", "evaluate"])
def test_every_flag_is_read_and_explained(script):
    text = Path(script.__file__).read_text()
    nodes = {node.name: node for node in ast.parse(text).body if hasattr(node, "name")}
    read = {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "args"
    }
    if "make_envs" in nodes:  # where the teacher's options are read by their names
        read |= {node.value for node in ast.walk(nodes["make_envs"]) if isinstance(node, ast.Constant)}
    assert {field.name for field in dataclasses.fields(script.Args)} <= read
    lines = text.splitlines()
    for node in nodes["Args"].body:
        if isinstance(node, ast.AnnAssign):
            assert "  # " in lines[node.lineno - 1], f"{node.target.id} has no explanation"
