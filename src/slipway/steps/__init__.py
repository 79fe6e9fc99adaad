"""What a served classifier runs, one file a step: numpy, one runtime each, and nothing of slipway.

`slipway.repository` copies these files into model repositories as they are; the offline stages import them here.
They run on Python 3.10 to 3.13.
"""
