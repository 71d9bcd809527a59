"""Direct attribution: the residual stream as a sum of named parts, and what each adds to a logit."""
