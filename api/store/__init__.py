"""The store: keys, revisions and watches; SQLite or etcd behind one seam."""

from api.store.seam import Changes, Compacted, Event, Item, Store, StoreConflict

__all__ = ["Changes", "Compacted", "Event", "Item", "Store", "StoreConflict"]
