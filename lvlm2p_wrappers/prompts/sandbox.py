"""The template sandbox: Jinja's own, with a budget of steps.

A prompt folder may come from a stranger. Jinja's sandbox keeps a template away from Python; this one also makes it end.
Every character and item that a template reads, compares or writes is a step. Steps need neither clock nor signal, so
the limit holds in any thread and is the same on every machine.
"""

from __future__ import annotations

import functools
import itertools
import re
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.filters import FILTERS, do_format
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import Namespace

from lvlm2p_wrappers.prompts.loader import PromptFiles

MOST_STEPS = 1_000_000
"""The budget of one render: about a second."""

_SETTINGS: dict[str, Any] = {
    "undefined": jinja2.StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
    "auto_reload": False,  # one run, one wording
}

# What a template writes, loops over, joins, compares, slices and may use as a key: by node, the field that holds it.
_LARGE: dict[type[nodes.Node], str] = {
    nodes.Output: "nodes",
    nodes.For: "iter",
    nodes.Concat: "nodes",
    nodes.Compare: "expr",
    nodes.Operand: "expr",
    nodes.Getitem: "node",
    nodes.Tuple: "items",
}

_ITEM = 3
_OPERATION = 10  # steps of a call, a filter, a test or an include
_CHARACTER_OF_SOURCE = 10  # compiling is slower than rendering
_COUNTED = "counted by the sandbox"  # a filter that the parser puts in; templates cannot write this name

# Without `random`, since the same view must give the same prompt, and without what makes much of little.
_FILTERS = (
    "abs batch capitalize center count d default dictsort e escape first float groupby indent int items join last",
    "length list lower map max min reject rejectattr replace reverse round select selectattr slice sort string title",
    "tojson trim truncate unique upper wordcount",
)


class LimitError(jinja2.TemplateRuntimeError):
    """A template or a schema asks for more work than it may."""


class Steps(threading.local):
    """A budget of steps, one in each thread."""

    left = 0

    def spend(self, steps: int) -> None:
        """Count some steps.

        Raises:
            LimitError: if there are not as many left.
        """
        self.left -= steps
        if self.left < 0:
            raise LimitError("it takes more than a million steps: shorten its loops and its text")

    def measure(self, value: Any) -> int:
        """Count the characters and items of a value, nested ones included, and return how many they are."""
        before = self.left
        flat = isinstance(value, str | bytes | range)
        self.spend(_ITEM + (len(value) if flat else 0))
        if isinstance(value, Namespace):
            raise LimitError("a namespace cannot be passed on, only its attributes can")
        if isinstance(value, Collection) and not flat and not isinstance(value, jinja2.Undefined):
            for item in value.items() if isinstance(value, Mapping) else value:
                self.measure(item)
        return before - self.left


class Sandbox(ImmutableSandboxedEnvironment):
    """A Jinja environment that renders a template, or refuses it, in about a second.

    Args:
        source: gives a template's text and the name of its file; None where there is no such template.
    """

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self, source: Callable[[str], tuple[str, str] | None]) -> None:
        super().__init__(loader=jinja2.FunctionLoader(self._load), **_SETTINGS)
        self._source = source
        self._steps = Steps()
        self.globals = {name: self.globals[name] for name in ("range", "namespace")}
        self.filters = {name: self._limited(FILTERS[name]) for name in " ".join(_FILTERS).split()}
        self.filters |= {"format": self._limited(_format), _COUNTED: self._counted}
        tests: Mapping[str, Any] = TESTS
        self.tests = {name: self._limited(test) for name, test in tests.items()}

    def get_template(self, name: Any, parent: str | None = None, globals: Any = None) -> jinja2.Template:  # noqa: A002
        """A template, with a fresh budget for loading and rendering it, unless another one includes it.

        Raises:
            Exception: whatever is wrong with the template; :class:`LimitError` if it takes too many steps.
        """
        if parent is None:
            self._steps.left = MOST_STEPS
        return super().get_template(name, parent, globals)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function or a method for a template."""
        self._charge(getattr(function, "__self__", None), *args, *kwargs.values())
        result = super().call(context, function, *args, **kwargs)
        if not isinstance(result, Namespace):
            self._steps.measure(result)
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Calculate with numbers of a moderate size; only ``+`` takes other values."""
        for value in (left, right):
            self._steps.measure(value)
            if isinstance(value, Collection) and operator != "+":
                raise LimitError(f"{operator} is for numbers, not for a {type(value).__name__}")
            if isinstance(value, int | float) and abs(value) > (100 if operator == "**" else 10**15):
                raise LimitError(f"{value:g} is too large a number for {operator}")
        return super().call_binop(context, operator, left, right)

    def join_path(self, template: str, parent: str) -> str:
        """Count an include."""
        self._steps.spend(_OPERATION)
        return super().join_path(template, parent)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse private attributes, changes of lists and tables, and encodings, some of which take quadratic time."""
        return super().is_safe_attribute(obj, attr, value) and attr not in {"encode", "decode"}

    def wrap_str_format(self, value: Any) -> Any:
        """Refuse ``str.format``, whose widths make much of little."""
        if super().wrap_str_format(value) is not None:
            raise LimitError("a template has the filter format, not the method")

    def _load(self, name: str) -> tuple[str, str, None] | None:
        found = self._source(name)
        if found is None:
            return None
        self._steps.spend(_CHARACTER_OF_SOURCE * len(found[0]))
        return *found, None

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Compile a template in which everything that can be large passes through the filter that counts."""
        return super()._generate(_instrumented(source), *args, **kwargs)

    @jinja2.pass_context  # otherwise constants would be counted once, when the template is compiled
    def _counted(self, _context: Context, value: Any) -> Any:
        self._steps.measure(value)
        return value

    def _charge(self, value: Any, *arguments: Any) -> None:
        """Count what an operation reads, before it is done; a number among its arguments may be a width."""
        self._steps.spend(_OPERATION)
        size = self._steps.measure(value)
        for argument in arguments:
            width = abs(argument) if isinstance(argument, int) else self._steps.measure(argument)
            self._steps.spend(width)
            if size * width > 10 * MOST_STEPS:
                raise LimitError("its result could have more than ten million characters")

    def _limited(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter or a test whose arguments and result are counted."""

        @functools.wraps(function)
        def limited(*args: Any, **kwargs: Any) -> Any:
            passed = hasattr(function, "jinja_pass_arg")
            self._charge(*args[passed:], *kwargs.values())
            result = function(*args, **kwargs)
            if isinstance(result, Iterator):  # it might go on for ever
                result = list(itertools.islice(result, self._steps.left + 1))
            self._steps.measure(result)
            return result

        return limited


def template_environment(files: PromptFiles) -> jinja2.Environment:
    """The environment that renders a set's templates, and reads nothing but the set's own files."""

    def source(name: str) -> tuple[str, str] | None:
        name = "/".join(part for part in name.split("/") if part not in ("", "."))
        text = files.text(name)
        return None if text is None else (text, str(files.path(name)))

    if not files.is_bundled:
        return Sandbox(source)
    loader = jinja2.FunctionLoader(lambda name: (*found, None) if (found := source(name)) else None)
    return ImmutableSandboxedEnvironment(loader=loader, **_SETTINGS)


def explained(error: Exception, name: str, variables: Collection[str], folders: Collection[Path]) -> str:
    """Why a template could not be rendered: its file, the line, and what is wrong."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.filename or name}, line {error.lineno}: {error.message}"
    if isinstance(error, jinja2.TemplateNotFound):
        return f"template {error.name!r} is in none of {', '.join(map(str, folders))}"
    # Jinja puts the template and the line into the traceback.
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".jinja")]
    where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else name
    if isinstance(error, jinja2.UndefinedError):
        return f"{where}: {error.message}; the variables are {', '.join(sorted(variables))}"
    return f"{where}: {error}"


def _instrumented(template: nodes.Template) -> nodes.Template:
    """Let everything that can be large pass through the filter that counts."""
    for node in [*template.find_all(tuple(_LARGE))]:
        part = getattr(node, _LARGE[type(node)])
        if getattr(node, "ctx", "load") == "load":
            counted = [_counted(each) for each in part] if isinstance(part, list) else _counted(part)
            setattr(node, _LARGE[type(node)], counted)
    return template


def _counted(node: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, _COUNTED, [], [], None, None, lineno=node.lineno)


def _format(value: str, *args: Any, **kwargs: Any) -> str:
    if re.search(r"\d{4}|\*", value):
        raise LimitError(f"format takes widths of up to three digits, not {value[:80]!r}")
    return do_format(value, *args, **kwargs)
