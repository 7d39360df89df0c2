"""Views and advice show themselves in a notebook."""

import base64
import re
from xml.etree import ElementTree

import gymnasium as gym
import numpy as np
import pytest

from lvlm2p_wrappers import Advice, Teacher, View
from lvlm2p_wrappers.views import viewer


@pytest.fixture
def view():
    env = gym.make("MiniGrid-Fetch-6x6-N2-v0")
    env.reset(seed=0)
    return viewer(env).view()


def test_a_view_shows_the_teachers_picture_and_what_it_is_told(view):
    shown = view._repr_html_()
    picture = re.search(r'src="data:image/png;base64,([^"]*)"', shown)[1]
    assert base64.b64decode(picture) == view.picture.png
    assert view.mission in shown
    assert "pickup" in shown


def test_advice_shows_a_bar_for_every_action_by_its_name_and_the_analysis(view):
    advice = Teacher("embedded/minigrid-planner", store=None).advise(view)
    assert advice.actions == ("turn_left", "turn_right", *view.actions[2:])  # as the prompts name them
    bars = re.findall(r"<td[^>]*>(\w+)</td><td[^>]*><span style=\"[^\"]*width:([\d.]+)em", advice._repr_html_())
    assert [name for name, _ in bars] == [*advice.actions]
    assert [float(width) for _, width in bars] == pytest.approx(12 * advice.probs, abs=0.001)
    assert "agent_row" in advice._repr_html_()


def test_what_a_model_or_an_environment_says_is_text_there():
    evil = '<img src=x onerror="alert(1)">'
    probs = np.float32([0.5, 0.5])
    advice = Advice(probs, f'{{"summary": "<b>{evil[1:5]}", "a": ["<i>"]}}', evil, False, 0.0, 1.0, (evil, "b"))
    view = View((np.zeros((32, 32, 3), np.uint8),), (evil, "b"), mission=evil, carrying=evil)
    for shown in (advice._repr_html_(), view._repr_html_()):
        tags = {each.tag for each in ElementTree.fromstring(re.sub(r"(<img[^>]*)>", r"\1/>", shown)).iter()}
        assert tags <= {"div", "img", "table", "tr", "td", "span"}
        assert "onerror=&quot;" in shown


def test_advice_without_analysis_or_names_shows_its_bars():
    advice = Advice(np.float32([0.25, 0.75]), "", "model", True, 0.0, 0.0)
    assert "width:9.000em" in advice._repr_html_()
