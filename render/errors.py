"""RenderError: an input that cannot be read or an option that cannot be drawn."""


class RenderError(Exception):
    """No result. The message names the thing, the value found and what to do next."""
