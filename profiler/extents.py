"""Extents: which stretches of a fixed array are free."""

import bisect


class Extents:
    """Hands out stretches of `capacity` entries, the first that fits, and takes them back."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free = [(0, capacity)]  # (first, count), ordered, never touching each other

    def allocate(self, count: int) -> int | None:
        """Return the first entry of a free stretch, None when none is long enough."""
        if count == 0:
            return 0
        for index, (first, room) in enumerate(self._free):
            if room >= count:
                self._free[index : index + 1] = [(first + count, room - count)] if room > count else []
                return first
        return None

    def free(self, first: int, count: int) -> None:
        """Take back a stretch that `allocate` gave."""
        if count == 0:
            return
        index = bisect.bisect(self._free, (first, count))
        limit = first + count
        if index < len(self._free) and self._free[index][0] == limit:
            limit += self._free.pop(index)[1]
        if index and sum(self._free[index - 1]) == first:
            index -= 1
            first = self._free.pop(index)[0]
        self._free.insert(index, (first, limit - first))
