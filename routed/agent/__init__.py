"""The agent: pure `plan`, one loop, thin drivers, and the local API in front of them."""
