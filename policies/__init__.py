"""Network policy: compiled to nftables and applied on each host."""
