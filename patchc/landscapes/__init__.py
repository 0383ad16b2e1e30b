"""The safety landscape: how a model replies as its weights move away from where they are."""
