"""What the author of a model writes with: `App`, `@endpoint`, `emit`, and the errors meant for callers.

    base      App: the class to derive from, and its knobs
    endpoint  the decorator; it only marks a method
    context   which request is running here: emit, Request, Cancelled
    errors    AppException and FieldException: what an author tells the caller on purpose
    files     File and Image: what is given out and taken in by URL
    keeper    who keeps and fetches those
    describe  reads a finished class: its endpoints, how each is run, its AppSpec
    schema    types to JSON schemas

Imports core and pydantic alone: a model's file can be imported, tested and type-checked without a server.
"""

from headrace.app.base import App
from headrace.app.context import Cancelled, Request, emit
from headrace.app.endpoint import endpoint
from headrace.app.errors import AppException, FieldException
from headrace.app.files import File, Image

__all__ = [
    "App",
    "AppException",
    "Cancelled",
    "FieldException",
    "File",
    "Image",
    "Request",
    "emit",
    "endpoint",
]
