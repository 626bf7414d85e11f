"""Histories under fault: who did what when, and whether that could have been.

Processes write down what they ask of the service and what they are told (`record`); pure functions
find in it what must never be (`judge`). How the histories come about is in `fleet`, `world` and
`nemesis`; `seeds` are bugs that the judge must find.
"""
