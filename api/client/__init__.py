"""The client of the service, for agents and `routectl`."""

from api.client.client import Client, Unreachable, WatchEvent

__all__ = ["Client", "Unreachable", "WatchEvent"]
