"""The client of the service, for agents and `routectl`."""

from api.client.client import Client, Unreachable, WatchEvent, context_of
from api.client.joining import authority_of, join, not_pinned

__all__ = [
    "Client",
    "Unreachable",
    "WatchEvent",
    "authority_of",
    "context_of",
    "join",
    "not_pinned",
]
