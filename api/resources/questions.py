"""What service and agents call questions of one to the other, and their answers."""

QUESTION = "routed.dev/question"  # the annotation of a bookmark in the watch of the agent's Node
WAYS, ANSWERS = "ways", "answers"  # what there are rights to, beside the kinds
