"""Policies of all sources, each in a place of its own, and patches that some keys have signed."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_checkpoints import normal, nudge, write_model

import patchc
from patchc.signing import policy as policy_module

SOURCES = ("call", "file", "environment", "user", "machine")
"""Where a policy can come from, beside the file of options of a command."""

NAMES = ("ann", "ben", "eve")


@dataclass(frozen=True)
class SignedModel:
    """A base, a tuned model, and the patch from one to the other, which each of three may sign."""

    folder: Path
    ids: dict[str, str]

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def tuned(self) -> Path:
        return self.folder / "tuned"

    def private(self, name: str) -> Path:
        """The private key of a name."""
        return self.folder / name

    def signed(self, *names: str) -> Path:
        """The patch that these have signed; nobody has signed the first one."""
        out = self.folder / f"{'-'.join(names) or 'unsigned'}.patchc"
        if not out.exists():
            shutil.copy(self.folder / "unsigned.patchc", out)
            for name in names:
                patchc.sign(out, key=self.private(name))
        return out


def make_signed_model(folder: Path) -> SignedModel:
    """Write the models, the patch and the keys."""
    base = {f"layers.{i}.weight": normal((40, 50), "BF16", i) for i in range(2)}
    write_model(folder / "base", base)
    write_model(folder / "tuned", {name: nudge(one, 0.1, 9) for name, one in base.items()})
    patchc.diff(folder / "base", folder / "tuned", out=folder / "unsigned.patchc", chunk_bits=12)
    return SignedModel(folder, {name: patchc.keygen(folder / name).key_id for name in NAMES})


@dataclass(frozen=True)
class PolicyWorld:
    """A signed model, and the places that policies and keys are looked for in.

    Attributes:
        folder: where the policies and the public keys of a test are.
        model: the models and patches, which no test changes.
    """

    folder: Path
    model: SignedModel

    def trusting(self, *names: str) -> list[str]:
        """Folders of the public keys of some names."""
        return [str(self.folder / f"{name}-keys") for name in names]

    def write(self, path: Path, text: str) -> Path:
        """Write a policy file that only its owner can write."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o755)
        path.write_text(text)
        path.chmod(0o644)
        return path

    def text(self, *names: str, require: int = 1, allow_code: bool = False) -> str:
        """A policy file's text."""
        code = "allow_code = true\n" if allow_code else ""
        return f"trusted = {json.dumps(self.trusting(*names))}\nrequire = {require}\n{code}"

    def place(self, source: str) -> Path:
        """Where the file of a source is."""
        parts = {"file": "own", "environment": "named", "user": "home/patchc", "machine": "etc"}
        return self.folder / parts[source] / "policy.toml"

    def ask(self, source: str, *names: str, require: int = 1) -> patchc.Trust:
        """Put a policy in force; what a call takes then."""
        if source == "call":
            return patchc.Trust(keys=self.trusting(*names), require=require)
        path = self.write(self.place(source), self.text(*names, require=require))
        return patchc.Trust(policies=path if source == "file" else ())


def make_policy_world(folder: Path, model: SignedModel, patch: pytest.MonkeyPatch) -> PolicyWorld:
    """Let policies be looked for below ``folder`` alone, and give everybody's keys."""
    for name in NAMES:
        keys = folder / f"{name}-keys"
        keys.mkdir(mode=0o755)
        shutil.copy(model.folder / f"{name}.pub", keys)
    world = PolicyWorld(folder, model)
    patch.setenv("XDG_CONFIG_HOME", str(folder / "home"))
    patch.delenv(policy_module.VARIABLE, raising=False)
    patch.setattr(policy_module, "MACHINE_POLICY", world.place("machine"))
    return world
