"""Agents without hosts: the real agent, a thousand of them, against a real control plane."""
