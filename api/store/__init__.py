"""The store: keys, revisions and watches; SQLite now, etcd behind the same seam."""

from api.store.seam import Compacted, Event, Item, Store, StoreConflict

__all__ = ["Compacted", "Event", "Item", "Store", "StoreConflict"]
