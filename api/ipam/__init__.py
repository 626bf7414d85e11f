"""Who owns which address: pure decisions, used by the service and inside a node's own blocks."""
