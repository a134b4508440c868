"""The commands of `pretrain`, a module each: `run(given)` takes the words after the command's name.

A module is imported when its command is used, so that `pretrain status` waits neither for timm nor for webdataset.
"""
