"""Keys as OpenSSL makes them, for model signing."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

CURVES = {"p256": ec.SECP256R1, "p384": ec.SECP384R1, "p521": ec.SECP521R1}


def write_keys(folder: Path, name: str, kind: str = "p256", password: bytes | None = None) -> Path:
    """Write ``name`` and ``name.pub``; the private key's path."""
    if kind == "ed25519":
        key: object = ed25519.Ed25519PrivateKey.generate()
    elif kind == "rsa":
        key = rsa.generate_private_key(65537, 2048)
    elif kind == "k256":
        key = ec.generate_private_key(ec.SECP256K1())
    else:
        key = ec.generate_private_key(CURVES[kind]())
    cipher = forms.BestAvailableEncryption(password) if password else forms.NoEncryption()
    folder.mkdir(parents=True, exist_ok=True)
    private, public = folder / name, folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, cipher)  # type: ignore[attr-defined]
    )
    private.chmod(0o600)
    public.write_bytes(
        key.public_key().public_bytes(  # type: ignore[attr-defined]
            forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private
