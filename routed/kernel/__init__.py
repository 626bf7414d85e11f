"""The only place that speaks rtnetlink: reading, changing and watching the kernel."""
