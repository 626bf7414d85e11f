"""The control plane: resources, IPAM, the store, the service and its client."""
