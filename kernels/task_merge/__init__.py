"""The arithmetic of merged task vectors."""
