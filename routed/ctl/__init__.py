"""`routectl`: kubectl's verbs, and what kubectl has no word for."""
