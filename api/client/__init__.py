"""The client of the service, for agents and `routectl`."""

from api.client.answers import Unreachable, Unread, WatchEvent
from api.client.client import Client, context_of
from api.client.joining import authority_of, join, not_pinned
from api.client.selections import Entries, Selections, Subject, Told

__all__ = [
    "Client",
    "Entries",
    "Selections",
    "Subject",
    "Told",
    "Unreachable",
    "Unread",
    "WatchEvent",
    "authority_of",
    "context_of",
    "join",
    "not_pinned",
]
