"""The replies of both stages as JSON text: the analysis of the picture, and the action probabilities."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from .action_probabilities import extra_steps, probabilities
from .analysis import CREDIT, PLANNED, as_reported, report
from .grid import Scene
from .mission import Instruction, current_instruction
from .noise import NoiseSource, as_seen, misread_scene, with_label_noise
from .request import Options, Request
from .schema_filling import fill
from .tiles import UnreadableError, read_picture


def answer(request: Request, options: Options) -> str:
    """The reply to a request: JSON in its schema, or prose where the picture cannot be read.

    Prose does not validate, so a picture of something else counts as a bad reply, as with any model. A transport error
    would be retried, and would end a run whose other pictures are fine.
    """
    try:
        scene = read_picture(request.picture)
    except UnreadableError as error:
        return f"I cannot read this picture: {error}. {CREDIT} It knows MiniGrid's pictures only."
    scene = replace(scene, world=scene.world.carry(request.carrying))
    noise = NoiseSource(scene, request, options)
    scene = as_seen(scene, options)
    instruction = current_instruction(request.mission, scene.world)
    if request.actions:
        return json.dumps(_action_reply(request, options, scene, instruction, noise))
    reported = misread_scene(scene, noise.draw("how")) if noise.is_misread() else scene
    fields = request.schema.get("properties") or {}
    known = report(reported, instruction, with_plan=not fields.keys().isdisjoint(PLANNED))
    return json.dumps(fill(request.schema, known) if fields else known)


def _action_reply(
    request: Request, options: Options, scene: Scene, instruction: Instruction, noise: NoiseSource
) -> dict[str, Any]:
    reported, targets = as_reported(request.analysis, scene, instruction)
    extra, has_plan = extra_steps(instruction, reported, request.actions, targets)
    probs = probabilities(extra, options.tau)
    if noise.is_label_wrong():
        probs = with_label_noise(probs, extra, noise.draw("which"))
    best = max(probs, key=lambda name: probs[name])
    basis = "By the shortest plan from here" if has_plan else "No plan to the end is known; on the off chance"
    return {
        "reasoning": f"{CREDIT} {basis}: {best}.",
        "probabilities": {name: round(prob, 6) for name, prob in probs.items()},
    }
