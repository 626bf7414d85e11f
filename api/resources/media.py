"""The media types of a PATCH (Kubernetes API concepts, "Patch mechanism")."""

JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"  # conditions that are not named stay
APPLY = "application/apply-patch+yaml"
LINES = "application/x-ndjson"  # of JSON, one object each
