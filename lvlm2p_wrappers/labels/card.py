"""The card of a label set: a README.md that Hugging Face's ``datasets`` reads, and people."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lvlm2p_wrappers.labels.layout import LabelSetInfo
from lvlm2p_wrappers.redaction import printable
from lvlm2p_wrappers.units import money

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))

_CARD = """\
---
pretty_name: {title}
size_categories:
- {size}
tags:
- lvlm2p
- reinforcement-learning
- policy-distillation
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
---

# {heading}

{labels:,} labels of the teacher `{model}` for the environment `{env_id}`: for each picture a probability
for each of the actions {actions}. {scripted}They were made by
lvlm2p with the prompt set `{prompts}` (fingerprint
`{fingerprint}`). Models that answered: {models}. What the calls cost: {usd}.

```python
from lvlm2p_wrappers import read_labels          # pip install 'lvlm2p[labels]'
labels = read_labels("{path}")
labels.probs                                     # ({labels}, {n_actions}) float32

import datasets                                  # or, without lvlm2p
datasets.load_dataset("{path}", split="train")
```

| column | what it holds |
| --- | --- |
| `image`, `earlier_images` | what the teacher was shown; earlier pictures where the prompt set shows several |
| `mission`, `carrying`, `history` | what it was told beside the picture |
| `actions`, `probs` | the actions' names, and the label: one probability each |
| `analysis`, `action` | the teacher's two replies, checked, as JSON |
| `model`, `prompts`, `cost_usd` | the model that answered, the prompt set's fingerprint, US dollars (null: unknown) |
| `env_id`, `source`, `view` | the environment, where the picture is from, a digest of all that the teacher was told |
{observation}"""

_OBSERVATION = "| `observation` | what a student sees: {dtype} of shape {shape}, in C order |\n"
_SCRIPTED = "The teacher is a scripted stand-in, not a vision-language model. "


def card(info: LabelSetInfo, *, labels: int, models: Collection[str], usd: Sequence[float | None]) -> str:
    """The text of a set's README.md.

    Args:
        info: what its labels have in common.
        labels: how many there are.
        models: the models that answered.
        usd: what each label cost; None where that is not known.
    """
    known = [cost for cost in usd if cost is not None]
    unpriced = f", and {len(usd) - len(known):,} labels without a known price" if len(known) < len(usd) else ""
    heading = f"Labels of {info.model} for {info.env_id}"
    text = _CARD.format(
        title='"' + heading.replace("\\", "\\\\").replace('"', '\\"') + '"',
        size=next((name for most, name in _SIZES if labels < most), "n>1M"),
        heading=heading,
        labels=labels,
        model=info.model,
        env_id=info.env_id,
        actions=", ".join(f"`{name}`" for name in info.actions),
        scripted=_SCRIPTED if info.model.startswith("embedded/") else "",
        prompts=info.prompts,
        fingerprint=info.fingerprint,
        models=", ".join(f"`{name}`" for name in sorted(models)),
        usd=money(sum(known) if known else None) + unpriced,
        path="path/to/this/folder",
        n_actions=len(info.actions),
        observation=_OBSERVATION.format(**info.observation.model_dump()) if info.observation else "",
    )
    return printable(text)
