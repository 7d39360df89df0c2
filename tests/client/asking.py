"""What the tests of the client ask, and how."""

from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym

from lvlm2p_wrappers import TeacherError
from lvlm2p_wrappers.client import Budget, Client, Request
from lvlm2p_wrappers.prompts import PromptSet
from lvlm2p_wrappers.views import viewer

MODEL = "openai/gpt-4o-mini"


def views(count, first=0):
    """Different views of MiniGrid's Fetch."""
    env = gym.make("MiniGrid-Fetch-6x6-N2-v0")
    for seed in range(first, first + count):
        env.reset(seed=seed)
        yield viewer(env).view()


def request_of(view, model=MODEL):
    """The first stage's request about a view."""
    question = PromptSet(None, view.env_info.family).analysis(view)
    return Request(model, question, question.sampling)


def labels(teacher, views):
    """What came of each view, all asked about at once: a distribution, or the error."""

    def ask(view):
        try:
            return teacher.advise(view).probs
        except TeacherError as error:
            return error

    with ThreadPoolExecutor(128) as pool:
        return list(pool.map(ask, views))


def client(**limits):
    """A client without limits but those that are given."""
    free = {"concurrency": 64, "rpm": None, "budget": Budget(), "timeout_s": 20, "max_retries": 0, "api_bases": {}}
    return Client(**free | limits)


def ignore(call):
    """No log."""
