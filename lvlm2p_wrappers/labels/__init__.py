"""Label sets: labels as Parquet files, made by ``lvlm2p label``, read with :func:`read_labels`."""

from lvlm2p_wrappers.labels.folder import LabelFolder
from lvlm2p_wrappers.labels.frames import frames_of
from lvlm2p_wrappers.labels.label_set import LabelSet, read_labels
from lvlm2p_wrappers.labels.labelling import LabelRow, label_views
from lvlm2p_wrappers.labels.layout import LabelSetInfo

__all__ = [
    "LabelFolder",
    "LabelRow",
    "LabelSet",
    "LabelSetInfo",
    "frames_of",
    "label_views",
    "read_labels",
]
