"""The FastAPI service; `run` serves it."""

from api.service.run import run

__all__ = ["run"]
