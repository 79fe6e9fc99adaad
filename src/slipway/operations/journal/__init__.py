"""The journal: a sample of the requests and answers, with the images, for the watch, labels and replays."""
