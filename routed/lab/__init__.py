"""A fabric of network namespaces on one machine that runs the real programs."""
