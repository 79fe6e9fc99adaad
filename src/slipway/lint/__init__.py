"""What can be told of a model repository from its files alone: no server, no GPU, nothing is run.

`assemble` lints what it wrote, `serve` and the doctor what they are given.
"""
