"""Paths as users write them: made absolute where they name one place, else refused in one line."""

import os
import re
import unicodedata

from wmjax.types import UsageError


def absolute(text: str) -> str:
    """A path of the command line or of a config as an absolute one, "~" expanded; symbolic links stay.

    An absolute path begins with "/", so no program takes it for an option, a protocol ("file:x") or standard input.

    Raises:
        UsageError: it is empty, a place on the network ("gs://bucket"), of a user who has no home, or has characters
            that end a line or cannot be written as UTF-8.
    """
    if not text:
        raise UsageError("the path is empty: give a folder or a file, . for this folder")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise UsageError(f"{text} is not a path of this machine's file system: mount it, or copy it")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        raise UsageError(f"{text!r} has characters that are not allowed in a path")
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise UsageError(f"{text}: there is no such user, or no home; for a folder of that name give ./{text}")
    return os.path.realpath(path) if ".." in path.split("/") else os.path.abspath(path)  # link/.. is not beside link
