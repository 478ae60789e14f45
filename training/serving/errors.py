"""What can go wrong while serving.

ServingError
  ModelError      the model package cannot be loaded
  ImageError      a picture that cannot be read
  TooManyPixelsError   a picture that would take too much memory once decoded
  RequestError    a question that cannot be answered, with its HTTP status
"""


class ServingError(Exception):
    """Base of all that is expected to go wrong; its message is one clear sentence."""


class ModelError(ServingError):
    """The model package cannot be loaded."""


class ImageError(ServingError):
    """The bytes are no picture, or a broken one."""


class TooManyPixelsError(ImageError):
    """The picture would take too much memory once decoded."""


class RequestError(ServingError):
    """The question cannot be answered; `status` is the HTTP status that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
