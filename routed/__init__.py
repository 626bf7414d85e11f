"""The per-host agent, the lab and the command lines."""
