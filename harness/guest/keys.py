"""SSH keys: of a run, made at its start, and of each system of ours, made when it wakes."""

from __future__ import annotations

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
    """Base64 part of the public key."""


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
    return RunKey(path, _public_of(key))


@dataclass(frozen=True, slots=True)
class HostKey:
    """The ed25519 key by which a system of ours is known."""

    pair: bytes
    """Seed with public half, 64 bytes."""
    public: str
    """Kind and base64, as in ``known_hosts``."""


def make_host_key() -> HostKey:
    """Make a key that no other system has."""
    key = Ed25519PrivateKey.generate()
    raw = serialization.Encoding.Raw
    seed = key.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
    point = key.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
    return HostKey(seed + point, f"ssh-ed25519 {_public_of(key)}")


def _public_of(key: Ed25519PrivateKey) -> str:
    line = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return line.split()[1].decode()
