"""What an nftables ruleset does with a packet, read from what ``nft -j list ruleset`` prints.

An oracle: it knows nothing of what wrote the ruleset, and where it does not know what a word means,
or what the packet has there, it raises `Unknown` and never guesses.
"""

from support.rulesets.packets import Packet
from support.rulesets.values import Unknown
from support.rulesets.walking import Outcome, Ruleset

__all__ = ["Outcome", "Packet", "Ruleset", "Unknown"]
