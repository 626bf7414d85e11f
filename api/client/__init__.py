"""The client of the service, for agents and `routectl`."""

from api.client.answers import Unreachable, Unread, WatchEvent
from api.client.client import Client, context_of
from api.client.joining import join

__all__ = ["Client", "Unreachable", "Unread", "WatchEvent", "context_of", "join"]
