"""Encrypts a private key so that guessing its password is slow (PKCS #8 with PBES2, RFC 8018).

The library's own writer stretches a password by 2,048 rounds of PBKDF2, which a graphics card
passes millions of times a second. What is written here differs in the number alone, so that the
library and OpenSSL read it.
"""

from __future__ import annotations

import base64
import os
import textwrap

ROUNDS = 600_000
"""Of PBKDF2 with HMAC-SHA-256; a fifth of a second."""

_PBES2 = bytes.fromhex("2a864886f70d01050d")
_PBKDF2 = bytes.fromhex("2a864886f70d01050c")
_HMAC_SHA256 = bytes.fromhex("2a864886f70d0209")
_AES_256_CBC = bytes.fromhex("60864801650304012a")
_INTEGER, _OCTETS, _NULL, _OBJECT, _SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x30
_BLOCK_BITS = 128


def encrypted_pem(private: bytes, password: bytes) -> bytes:
    """A private key's DER (PKCS #8) as the text of an encrypted key."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
    from cryptography.hazmat.primitives.padding import PKCS7

    salt, start = os.urandom(16), os.urandom(_BLOCK_BITS // 8)
    key = PBKDF2HMAC(SHA256(), length=32, salt=salt, iterations=ROUNDS).derive(password)
    padder = PKCS7(_BLOCK_BITS).padder()
    cipher = Cipher(algorithms.AES256(key), modes.CBC(start)).encryptor()
    hidden = cipher.update(padder.update(private) + padder.finalize()) + cipher.finalize()
    number = ROUNDS.to_bytes(ROUNDS.bit_length() // 8 + 1, "big")
    stretching = _sequence(
        _part(_OCTETS, salt),
        _part(_INTEGER, number),
        _sequence(_part(_OBJECT, _HMAC_SHA256), _part(_NULL, b"")),
    )
    scheme = _sequence(
        _sequence(_part(_OBJECT, _PBKDF2), stretching),
        _sequence(_part(_OBJECT, _AES_256_CBC), _part(_OCTETS, start)),
    )
    whole = _sequence(_sequence(_part(_OBJECT, _PBES2), scheme), _part(_OCTETS, hidden))
    lines = textwrap.wrap(base64.b64encode(whole).decode(), 64)
    name = "ENCRYPTED PRIVATE KEY-----"
    return "\n".join([f"-----BEGIN {name}", *lines, f"-----END {name}", ""]).encode()


def _sequence(*parts: bytes) -> bytes:
    return _part(_SEQUENCE, b"".join(parts))


def _part(tag: int, content: bytes) -> bytes:
    """A part in DER; none here has more than 255 bytes."""
    length = [len(content)] if len(content) < 0x80 else [0x81, len(content)]
    return bytes([tag, *length]) + content
