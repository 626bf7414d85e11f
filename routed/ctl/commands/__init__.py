"""The table of verbs: what each is called with, an example of each; the work is done elsewhere."""
