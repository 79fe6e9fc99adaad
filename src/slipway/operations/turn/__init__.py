"""One cycle of retraining: a proposal with evidence, and the record of what became of it."""
