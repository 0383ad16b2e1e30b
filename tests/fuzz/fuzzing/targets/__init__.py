"""All targets; each has a module of its own."""

from __future__ import annotations

from fuzzing.target import Target
from fuzzing.targets import (
    additive,
    checkpoint,
    components,
    conditional,
    conversations,
    expressions,
    json_values,
    options,
    patch_reader,
    policies,
    recipes,
    requests,
    results,
    rice,
    screens,
    signatures,
)

TARGETS: dict[str, Target] = {
    module.TARGET.name: module.TARGET
    for module in (
        patch_reader,
        screens,
        rice,
        additive,
        conditional,
        checkpoint,
        signatures,
        policies,
        recipes,
        expressions,
        conversations,
        requests,
        results,
        components,
        options,
        json_values,
    )
}
"""By name."""
