"""OpenSSF model-signing bundles: the signature of a model's files, for any tool that reads them."""
