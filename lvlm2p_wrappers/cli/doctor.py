"""``lvlm2p doctor``: what is installed, which keys are set, where the store is, and whether a model answers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from dataclasses import dataclass
from typing import Annotated, Any

import humanize
from tyro.conf import arg

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.cli.arguments import Json, StoreFile, optional
from lvlm2p_wrappers.cli.environments import in_silence, make
from lvlm2p_wrappers.cli.printing import say, say_facts, say_json
from lvlm2p_wrappers.client import catalogue
from lvlm2p_wrappers.errors import TeacherError
from lvlm2p_wrappers.prompts.loader import bundled_prompts
from lvlm2p_wrappers.store import DEFAULT, Store, is_there, locate
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.units import duration, money
from lvlm2p_wrappers.views import viewer

FREE = "embedded/minigrid-planner"
_ENV = "MiniGrid-LavaGapS5-v0"


@dataclass(kw_only=True)
class Doctor:
    """Tell what is installed and set here, and whether a model answers.

    Of keys only the names are printed. The embedded teacher is asked one
    question, which is free; a model that --model names is asked the same one,
    which two calls at its provider pay for, at most --budget-usd. The answer is
    not kept, so that each time it is asked anew.

    Examples:
      lvlm2p doctor
      lvlm2p doctor --model gemini/gemini-2.5-flash-lite
    """

    model: Annotated[str, arg(metavar="M", help="whom to ask")] = FREE
    budget_usd: Annotated[float, optional("X", help="spend at most so many US dollars on the question")] = 0.01
    store: StoreFile = DEFAULT
    json: Json = False

    def run(self) -> None:
        """See ``Command``."""
        installed, missing = _packages()
        found = {
            "python": platform.python_version(),
            "packages": installed,
            "missing": missing,
            "keys": _keys(),
            "prompts": str(bundled_prompts()),
            "store": _store(self.store),
            "model": self.model,
        }
        problem = None
        try:
            found |= _ask(self.model, self.budget_usd)
        except TeacherError as error:
            problem = error
        if self.json:
            say_json({**found, "error": problem and str(problem)})
        else:
            _print(found, problem)
        if problem is not None:
            raise problem


def _packages() -> tuple[dict[str, str], dict[str, list[str]]]:
    """The versions of what is installed; and by extra what is missing."""
    installed = {"lvlm2p": importlib.metadata.version("lvlm2p")}
    missing: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("lvlm2p") or ():
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"](\w+)['\"]", requirement)
        if extra and extra[1] == "dev":
            continue
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.setdefault(extra[1] if extra else "", []).append(name)
    return installed, missing


def _keys() -> list[str]:
    """The names of the providers' variables that are set."""
    return sorted(name for names in catalogue.KEYS.values() for name in names if os.environ.get(name))


def _store(location: str) -> dict[str, Any]:
    place = locate(location)
    if not is_there(place):
        return {"path": str(place), "bytes": None, "answers": None}
    with Store(place, read_only=True) as store:
        found = stores.stats(store)
    return {"path": store.path, "bytes": found.size_bytes, "answers": sum(found.answers.values())}


def _ask(model: str, budget_usd: float) -> dict[str, Any]:
    """One question, whose answer is not kept."""
    with in_silence():
        env = make(_ENV)
    teacher = Teacher(model, store=None, budget_usd=budget_usd)
    advice = teacher.advise(viewer(env).view())
    return {"calls": teacher.counters.calls, "latency_s": advice.latency_s, "cost_usd": advice.cost_usd}


def _print(found: dict[str, Any], problem: TeacherError | None) -> None:
    packages = found["packages"]
    main = ("gymnasium", "minigrid", "litellm", "torch")
    versions = [f"{name} {packages[name]}" for name in main if name in packages]
    store, size = found["store"], found["store"]["bytes"]
    rows = [
        ("lvlm2p", packages["lvlm2p"]),
        ("python", found["python"]),
        ("packages", ", ".join(versions)),
        *((f"without [{extra}]", ", ".join(names)) for extra, names in found["missing"].items()),
        ("keys set", ", ".join(found["keys"]) or "none; the embedded teacher needs none"),
        ("prompts", found["prompts"]),
        ("store", f"{store['path']}, " + _size(size, store["answers"])),
    ]
    if problem is None:
        took = f"{found['calls']} calls, {duration(found['latency_s'])}, {money(found['cost_usd'])}"
        rows.append((found["model"], f"answers: {took}"))
    say_facts(rows)
    if found["missing"]:
        say("\nAn extra is installed by its name: pip install 'lvlm2p[algos]', or '.[algos]' in a checkout.")


def _size(size: int | None, answers: int | None) -> str:
    if size is None:
        return "not there yet: a teacher makes it with its first question"
    return f"{humanize.naturalsize(size)}, {answers:,} answers"
