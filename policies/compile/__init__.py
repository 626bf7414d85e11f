"""Policies as nftables: from a plan and members to what the table has to hold, and from there to
the commands of one transaction. Pure."""
