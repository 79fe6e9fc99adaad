"""Models of the stages' measurements. Writers build them, and readers import them."""
