"""What goes wrong with a store."""


class StoreError(ValueError):
    """A store that cannot be opened, read or written; the message names the file and what to do."""
