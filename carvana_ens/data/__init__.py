"""Photos, masks, ids, groups, folds, and the sample generator."""
