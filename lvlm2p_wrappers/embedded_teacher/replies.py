"""The two replies: what is where, and how much each action deserves."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from .action_probabilities import extra_steps, probabilities
from .analysis import CREDIT, as_reported, report
from .grid import Scene
from .mission import Task, current_task
from .noise import NoiseSource, led_astray, misread
from .request import Options, Request
from .schema_filling import fill
from .tiles import UnreadableError, read_picture


def answer(request: Request, options: Options) -> str:
    """The reply to a request: JSON in its schema, or prose where the picture cannot be read.

    Prose does not validate, so a picture of something else counts as a bad reply, as it would with any model. An error
    of the transport would be retried, and would stop a run whose other pictures are fine.
    """
    try:
        scene = read_picture(request.picture)
    except UnreadableError as error:
        return f"I cannot read this picture: {error}. {CREDIT} It knows MiniGrid's pictures only."
    scene = replace(scene, world=scene.world.carry(request.carrying))
    task = current_task(request.mission, scene.world)
    lots = NoiseSource(scene, request, options)
    if request.actions:
        return json.dumps(_weigh(request, options, scene, task, lots))
    known = report(misread(scene, lots.draw("how")) if lots.misreads() else scene, task)
    return json.dumps(fill(request.schema, known) if request.schema.get("properties") else known)


def _weigh(request: Request, options: Options, scene: Scene, task: Task, lots: NoiseSource) -> dict[str, Any]:
    told, targets = as_reported(request.analysis, scene, task)
    extra, has_plan = extra_steps(task, told, request.actions, targets)
    weights = probabilities(extra, options.tau)
    if lots.errs():
        weights = led_astray(weights, extra, lots.draw("which"))
    best = max(weights, key=lambda name: weights[name])
    basis = "By the shortest plan from here" if has_plan else "No plan to the end is known; on the off chance"
    return {
        "reasoning": f"{CREDIT} {basis}: {best}.",
        "probabilities": {name: round(weight, 6) for name, weight in weights.items()},
    }
