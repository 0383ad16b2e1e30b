"""Who stands behind a patch: keys, statements, signatures, and what a policy asks of them."""
