"""The client of the service, for agents and `routectl`."""

from api.client.client import Client, Unreachable, WatchEvent, context_of
from api.client.joining import join

__all__ = ["Client", "Unreachable", "WatchEvent", "context_of", "join"]
