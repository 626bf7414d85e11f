"""etcd, for more than one machine; nothing outside of this package knows it."""
