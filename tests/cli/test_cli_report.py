"""``lvlm2p report``: where the page goes, what is said of it, and what is refused."""

import json
from pathlib import Path

import pytest

from lvlm2p_wrappers.cli import main
from lvlm2p_wrappers.store import Store
from tests.report.evaluation_samples import change_label, write_folder
from tests.report.html_tree import parse
from tests.store.store_samples import ANSWER, CALL


@pytest.fixture
def lvlm2p(capsys):
    """Runs ``lvlm2p report ...`` and returns what it prints."""

    def run(*args, code=0):
        assert main(["report", *map(str, args)]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return run


@pytest.fixture
def folder(tmp_path):
    folder = write_folder(tmp_path / "evaluation", states=1)
    change_label(folder, 0, mission="reach the gift")
    return folder


def fill_store(file):
    with Store(file) as store:
        store.record(CALL, ANSWER)


def test_the_page_goes_into_the_folder_of_the_evaluation(lvlm2p, folder):
    said = lvlm2p(folder)
    page = folder / "report.html"
    assert said.startswith(f"{page}: 1 views, ")
    assert "reach the gift" in page.read_text()
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("target", ["outside.html", "missing.html"])
def test_a_link_in_the_folder_sends_the_page_nowhere_else(lvlm2p, folder, tmp_path, target):
    """A folder of somebody else's may name any file as its report."""
    (tmp_path / "outside.html").write_text("mine")
    (folder / "report.html").symlink_to(tmp_path / target)
    assert "report.html is no plain file of this folder" in lvlm2p(folder, code=2)
    assert (tmp_path / "outside.html").read_text() == "mine"
    assert not (tmp_path / "missing.html").exists()


def test_the_page_goes_where_it_is_told_and_json_says_what_it_is(lvlm2p, folder, tmp_path):
    page = tmp_path / "page.html"
    told = json.loads(lvlm2p(folder, "-o", page, "--json"))
    assert told == {"file": str(page), "views": 1, "bytes": page.stat().st_size}


def test_a_store_is_reported_on_in_the_working_folder(lvlm2p, tmp_path):
    fill_store(tmp_path / "store.sqlite")  # where LVLM2P_STORE points
    assert lvlm2p("--store").startswith("report.html: 1 views")
    assert CALL.env_id in (tmp_path / "report.html").read_text()
    fill_store(tmp_path / "other.sqlite")
    told = json.loads(lvlm2p("--store", tmp_path / "other.sqlite", "--env", "MiniGrid-*", "--last", 5, "--json"))
    assert told["views"] == 1


@pytest.mark.slow
def test_what_evaluate_writes_is_what_report_shows(lvlm2p, tmp_path):
    folder = tmp_path / "evaluated"
    teacher = ["--model", "embedded/minigrid-planner?misread=0.5", "--states", "6", "--episodes", "2"]
    assert main(["evaluate", "MiniGrid-LavaGapS5-v0", *teacher, "--out", str(folder)]) == 0
    shown = parse(Path(lvlm2p(folder).splitlines()[-1].partition(": ")[0]).read_text())
    metrics = json.loads((folder / "evaluation.json").read_text())["metrics"]
    assert (
        f"Agent's heading {metrics['analysis']['heading']['value']:.1%}" in shown.one("section", kind="metrics").words
    )
    labels = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    wrong = [label["analysis"]["heading"] != label["truth"]["heading"] for label in labels]
    assert sum(row.words.startswith("heading ") for row in shown.all("div", kind="off")) == sum(wrong)
    assert len(list(shown.all("article"))) == len(labels)
    assert len(list(shown.all("details", kind="conversation"))) == len(labels)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what to report on"),
        (["folder", "--store"], "say what to report on"),
        (["missing"], "missing is no evaluation: it has no evaluation.json"),
        (["folder", "--last", "3"], "--env and --last choose from a store"),
        (["--store", "missing.sqlite"], "there is no store"),
        (["--store", "--env", "Taxi*"], "has logged no call about Taxi*"),
        (["evaluation", "-o", "no/such/folder/page.html"], "no/such/folder/page.html: No such file"),
    ],
)
def test_what_cannot_be_done_is_said_with_the_way_out(lvlm2p, folder, tmp_path, arguments, said):
    fill_store(tmp_path / "store.sqlite")
    assert said in lvlm2p(*arguments, code=2)
    assert not (tmp_path / "missing.sqlite").exists()
    assert not (folder / "report.html").exists()
