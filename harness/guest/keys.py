"""The SSH key of one run: made at its start, never leaves its directory."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class RunKey:
    """An ed25519 key pair."""

    private: Path
    """OpenSSH private key file, mode 0600."""
    public: str
    """Base64 part of the public key; short enough for a kernel command line."""


def make_key(directory: Path) -> RunKey:
    """Make a key in *directory*."""
    key = Ed25519PrivateKey.generate()
    path = directory / "id_ed25519"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            )
        )
    line = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    blob = line.split()[1]
    base64.b64decode(blob, validate=True)
    return RunKey(path, blob.decode())
