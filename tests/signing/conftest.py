"""Fixtures of the tests beside."""

from __future__ import annotations

from pathlib import Path

import pytest
from policy_world import PolicyWorld, SignedModel, make_policy_world, make_signed_model


@pytest.fixture(scope="session")
def signed_model(tmp_path_factory: pytest.TempPathFactory) -> SignedModel:
    """Models, and a patch that some keys have signed; tests leave them as they are."""
    return make_signed_model(tmp_path_factory.mktemp("signed"))


@pytest.fixture
def world(
    tmp_path: Path, signed_model: SignedModel, monkeypatch: pytest.MonkeyPatch
) -> PolicyWorld:
    """Places of policies that hold none yet."""
    return make_policy_world(tmp_path, signed_model, monkeypatch)
