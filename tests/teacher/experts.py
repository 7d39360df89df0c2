"""Python teachers, pictures and facts of a user's own, as tests name them: ``tests.teacher.experts:upright``."""

import numpy as np

from lvlm2p_wrappers import Advice

CALLS = []


def upright(view):
    """CartPole: push to the side to which the pole falls; the observation tells, the picture is not looked at."""
    _, _, angle, velocity = view.observation
    return {"push_right": 0.9, "push_left": 0.1} if angle + velocity > 0 else np.array([0.9, 0.1])


def recorded(view):
    """Keep the views, and always advise the first action."""
    CALLS.append(view)
    return {view.actions[0]: 1.0}


def versioned(view):
    """The same, with a version."""
    return recorded(view)


versioned.version = "1"


class Rules:
    """An expert that is an object."""

    def teach(self, view):
        """Always the last action."""
        return np.eye(len(view.actions), dtype=np.float32)[-1]


rules = Rules()


def raising(view):
    """An expert with a defect."""
    raise KeyError(view.mission)


def giving(found):
    """An expert that returns always the same."""
    return lambda view: found  # noqa: ARG005


nan, infinite, negative = giving([np.nan, 1.0]), giving([np.inf, 0.0]), giving([1.5, -0.5])
no_sum, too_many, unknown = giving([0.0, 0.0]), giving([0.2, 0.3, 0.5]), giving({"jump": 1.0})
words, nothing, advice = giving({"push_left": "much"}), giving(None), giving(Advice)


def large(env):
    """A picture larger than any environment's own, whose first pixels tell how often a cart has moved."""
    picture = np.full((320, 640, 3), 255, np.uint8)
    picture[0, 0] = int(abs(env.unwrapped.state[0]) * 1e4) % 256 if hasattr(env.unwrapped, "state") else 7
    return picture


def small(env):  # noqa: ARG001
    """No picture that a model could read."""
    return np.zeros((8, 8, 3), np.uint8)


def steps_left(env):
    """What no picture shows."""
    return {"Pole's length": 0.5, "Wind": "none", "State": str(getattr(env.unwrapped, "state", None) is not None)}


def a_list(env):  # noqa: ARG001
    """No named strings."""
    return ["windy"]
