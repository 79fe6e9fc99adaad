"""What the stages measure. Writers build these models, and readers import them."""
