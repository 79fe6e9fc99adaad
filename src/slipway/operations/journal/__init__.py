"""What was asked and answered: a sample of the requests, with the images, for the watch, labels and replays."""
