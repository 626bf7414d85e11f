"""`routed doctor`: whether attaching will work on this host, and what to fix."""
