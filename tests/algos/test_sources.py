"""The scripts are files to be read and copied: what they share is the same text, and every flag is explained."""

import ast
import dataclasses
import itertools
from pathlib import Path

import pytest

from lvlm2p_wrappers import ScriptFlags
from tests.algos.scripts import a2c, a2c_replay, evaluate, ppo, ppo_replay

SCRIPTS = [ppo, a2c, ppo_replay, a2c_replay]
OF_ALGORITHM = {"ALGO", "Args", "Batch", "make_batch", "ppo_loss", "a2c_loss", "update"}
OF_METHOD = {"ALGO", "Args", "Labels", "make_envs", "collect", "gather_labels", "save_checkpoint"}
OF_METHOD |= {"train", "main", "sharpened"}


def sources(script):
    """The text of every function, class and constant of a script, by its name."""
    text = Path(script.__file__).read_text()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = ast.get_source_segment(text, node)
        elif isinstance(node, ast.Assign | ast.AugAssign):
            name = (node.target if isinstance(node, ast.AugAssign) else node.targets[0]).id
            found[name] = found.get(name, "") + ast.get_source_segment(text, node)
    return found


def the_same_but_for(ours, theirs, own):
    assert ours.keys() - own == theirs.keys() - own
    for name in ours.keys() - own:
        assert ours[name] == theirs[name], name


@pytest.mark.parametrize(("one", "other"), itertools.combinations(SCRIPTS, 2))
def test_scripts_differ_in_what_belongs_to_their_algorithm_and_their_method_alone(one, other):
    own = OF_ALGORITHM if one.ALGO[:3] != other.ALGO[:3] else set()
    own = own | (OF_METHOD if one.ALGO.endswith("replay") != other.ALGO.endswith("replay") else set())
    the_same_but_for(sources(one), sources(other), own)


def test_the_evaluation_has_the_student_and_its_environment_word_for_word_from_the_scripts():
    ours, theirs = sources(evaluate), sources(ppo)
    copied = ours.keys() & theirs.keys() - {"Args", "main", "cli"}
    assert copied == {"make_env", "layer_init", "Grid", "Picture", "Agent"}
    for name in copied:
        assert ours[name] == theirs[name], name


@pytest.mark.parametrize("scripts", [(ppo, a2c), (ppo_replay, a2c_replay)], ids=["paper", "replay"])
def test_the_flags_around_the_teacher_are_the_same_for_both_algorithms(scripts):
    ours, theirs = (
        [line.partition("=")[0] + line.partition("#")[2] for line in text.splitlines()]
        for text in (sources(script)["Args"].split("    lam: float")[1].split("    def ")[0] for script in scripts)
    )
    assert ours == theirs
    assert any("weight of KL" in line for line in ours)


def test_the_papers_scripts_have_no_way_to_learn_beyond_its_ablations():
    ours, papers = ({field.name for field in dataclasses.fields(script.Args)} for script in (ppo_replay, ppo))
    assert papers - ours == {"label_type", "anneal_lr"}
    learning = {"lam_patience", "label_temperature", "ask_share", "num_steps_alone", "learning_rate_alone"}
    assert ours - papers == learning | {"num_minibatches_alone", "replay_minibatches", "replay_batch", "labels"}


@pytest.mark.parametrize("script", [*SCRIPTS, evaluate], ids=lambda script: Path(script.__file__).stem)
def test_every_flag_is_read_and_explained(script):
    text = Path(script.__file__).read_text()
    nodes = {node.name: node for node in ast.parse(text).body if hasattr(node, "name")}
    read = {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("args", "self.args", "now")
    }
    flags_alone = [node for node in ast.walk(ast.parse(text)) if getattr(node, "name", "") == "alone"]
    read |= {node.attr for alone in flags_alone for node in ast.walk(alone) if isinstance(node, ast.Attribute)}
    if issubclass(script.Args, ScriptFlags):
        assert {"model", "ask_every", "teacher_options", "samples_every", "checkpoint_every", "resume"} <= read
        read |= {field.name for field in dataclasses.fields(ScriptFlags)}
    if "run.begin(ALGO, vars(args)" in text:
        read |= {"success_return"}  # by the run
    assert {field.name for field in dataclasses.fields(script.Args)} <= read
    lines = text.splitlines()
    for node in nodes["Args"].body:
        if isinstance(node, ast.AnnAssign):
            assert "  # " in lines[node.lineno - 1], f"{node.target.id} has no explanation"
