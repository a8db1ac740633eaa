"""SymbolizeError: what this folder raises when there is no result at all."""


class SymbolizeError(Exception):
    """An input that cannot be read as what it should be; the message says what is wrong with it."""
