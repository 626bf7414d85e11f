"""The speaker: ExaBGP, what keeps it, and the stream that agents speak with it."""
