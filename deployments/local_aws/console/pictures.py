"""What a picture is, by its first bytes: what it is called, or says it is, is of no account."""

_KINDS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def picture_type(beginning: bytes) -> str | None:
    """Return the media type of a PNG or a JPEG; None for anything else."""
    return next((kind for mark, kind in _KINDS.items() if beginning.startswith(mark)), None)
