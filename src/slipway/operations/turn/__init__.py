"""One turn of the flywheel: a proposal with evidence, and the record of what became of it."""
