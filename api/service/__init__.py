"""The FastAPI service; `run` serves it."""

from api.service.rate import Rate
from api.service.run import run
from api.service.throttle import Rates

__all__ = ["Rate", "Rates", "run"]
