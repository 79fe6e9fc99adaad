"""What the stages measure. A writer builds one of these models, a reader imports it: there is no second definition."""
