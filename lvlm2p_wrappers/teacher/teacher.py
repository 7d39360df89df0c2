"""The teacher, as it is used: its options, and advice for views."""

from __future__ import annotations

from collections.abc import Iterable

from lvlm2p_wrappers.errors import TeacherError
from lvlm2p_wrappers.records import Advice, View
from lvlm2p_wrappers.teacher.questions import Questions
from lvlm2p_wrappers.teacher.session import PendingAdvice


class Teacher(Questions):
    """Asks a vision-language model what it would do, in two stages, each answer paid for once.

    Its copy is the teacher itself; where a pickled one is loaded, it is that process's teacher for the same arguments.
    Leaving its ``with`` block closes it.

    Args:
        model: a LiteLLM model string; ``"embedded/minigrid-planner"``, which needs neither key nor network; or
            ``"python:module:function"``, a function of your own from a :class:`View` to a probability for every action,
            as a mapping from their names or an array. It is called for every row, and what it says is stored only if it
            declares a version: ``function.version = "1"``.
        prompts: a folder of your own templates, or the name of a bundled set; by default the bundled set that fits.
        store: where answers are kept: a path, ``"default"`` (``$LVLM2P_STORE``, else the user's cache folder), or None.
        concurrency: the most calls in flight.
        rpm: the most calls a minute.
        rpm_scope: whose calls count: of this ``"process"``, or of all that share the ``"store"`` with this scope.
        budget_usd: the most to spend, in US dollars.
        budget_calls: the most calls.
        budget_scope: whose spending counts: of this ``"process"``, or of all that share the ``"store"`` with this
            scope, since the store's beginning.
        spent_usd: what earlier parts of the same run have spent of ``budget_usd``.
        spent_calls: how many of ``budget_calls`` they have made.
        offline: answer from the store alone.
        fallback_models: asked in order where the model fails; a label records the model that truly answered.
        temperature: overrides the prompt set's.
        max_tokens: overrides the prompt set's.
        reasoning_effort: overrides the prompt set's.
        timeout_s: seconds after which a call counts as failed.
        max_retries: how often a call is repeated after faults that may pass.
        api_base: the address of the model's server, where it is not the provider's own.
        render: ``"module:function"``, from an environment to the picture that is shown instead of its own: uint8 RGB.
        facts: ``"module:function"``, from an environment to what no picture shows, as named strings.

    Attributes:
        function: the Python function that answers; None where a model is asked.
        store: where the answers are kept.

    Raises:
        UsageError: if a value cannot work.

    Example:
        >>> import gymnasium as gym
        >>> from lvlm2p_wrappers.views import viewer
        >>> env = gym.make("MiniGrid-LavaGapS7-v0")
        >>> _ = env.reset(seed=0)
        >>> with Teacher("embedded/minigrid-planner", store=None) as teacher:
        ...     advice = teacher.advise(viewer(env).view())
        >>> advice.probs.shape, advice.model
        ((7,), 'embedded/minigrid-planner')
    """

    def advise(self, view: View) -> Advice:
        """Ask about one view and wait for the advice.

        Raises:
            TeacherError: if there is none.
        """
        (outcome,) = self.collect([self.submit(view)], on_error="raise")
        if isinstance(outcome, TeacherError):
            raise outcome
        assert outcome is not None
        return outcome

    def label(self, views: Iterable[View]) -> list[Advice | TeacherError]:
        """Ask about many views at once and wait for all of the advice.

        Returns:
            For each view the advice; where there is none, the error that says why: a :class:`BadReplyError`, a
            :class:`TransportError` or, where the budget did not allow the question, a :class:`BudgetError`.

        Raises:
            TeacherError: if the user has to mend something, or too many questions stayed without an answer. All open
                questions have settled by then, and their answers are stored.
        """
        outcomes = self.collect([self.submit(view) for view in views], on_error="skip")
        return [outcome for outcome in outcomes if outcome is not None]

    def submit(self, view: View) -> PendingAdvice:
        """Ask about a view, without waiting; equal views are one question."""
        view = self.prompts(view.env_info).as_told(view)
        return self.ask(view, view.history)
