"""From requests to a tested patch: the stages of a fix, what each is made from, and its report."""
