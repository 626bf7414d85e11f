"""What proves who one is, on its way in: from a file of mode 0600, from stdin, from a prompt;
never from the command line, which everybody on the host can read."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from api.resources.errors import Cause, ConfigError


def read(path: Path | None, prompt: str = "Token") -> str:
    """Out of a file ("-": stdin); None: stdin, or a prompt where that is a terminal."""
    if path is None or str(path) == "-":
        if sys.stdin.isatty():
            return getpass.getpass(f"{prompt}: ").strip()
        return sys.stdin.readline().strip()
    try:
        mode = path.stat().st_mode & 0o777
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [Cause("", f"cannot read it: {error}")]) from error
    if mode & 0o077:
        problem = f"has mode {mode:04o}: others could have read the token; chmod 0600 {path}"
        raise ConfigError(str(path), [Cause("", problem)])
    return text.strip()


def one_word(path: Path | None, prompt: str = "Token") -> str:
    """A token; ConfigError if it is none, which does not repeat what was given."""
    text = read(path, prompt)
    if len(text.split()) != 1 or not text.isascii():
        raise ConfigError(str(path or "stdin"), [Cause("", "must be one word, a token")])
    return text
