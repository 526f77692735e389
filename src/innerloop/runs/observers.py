"""Who is told how a run goes.

OnStep        (the adapter's name, what was measured) -> None
Forecasting   says what a run will take, and measures what its first step took: planning.forecaster has one
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from innerloop.engine.metrics import Metrics
from innerloop.engine.session import Session
from innerloop.engine.trainer import Trainer

OnStep = Callable[[str, Metrics], None]


class Forecasting(Protocol):
    """It changes no number of the run. What it gives goes to the manifest."""

    def begins(self, session: Session) -> dict[str, Any]:
        """The forecast of a run that is about to begin; empty where none is made. Not called on resume."""
        ...

    def first_step(self, session: Session, trainer: Trainer) -> AbstractContextManager[dict[str, Any]]:
        """Around the first step of a run with a forecast; what the step took is in the mapping at the end."""
        ...
