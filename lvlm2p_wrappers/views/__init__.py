"""What a teacher is shown of an environment: the picture, and in text only what no picture shows."""

from lvlm2p_wrappers.records import EnvInfo, Family, View
from lvlm2p_wrappers.views.environment import action_names
from lvlm2p_wrappers.views.episode import EpisodeMemory
from lvlm2p_wrappers.views.lines import with_line, with_lines
from lvlm2p_wrappers.views.own_view import PLAIN, OwnView
from lvlm2p_wrappers.views.vector import VectorViewer, vector_viewer
from lvlm2p_wrappers.views.viewer import Viewer, viewer

__all__ = [
    "PLAIN",
    "EnvInfo",
    "EpisodeMemory",
    "Family",
    "OwnView",
    "VectorViewer",
    "View",
    "Viewer",
    "action_names",
    "vector_viewer",
    "viewer",
    "with_line",
    "with_lines",
]
