"""Models of the Hugging Face hub: names, downloads, and what is kept of them on this disk.

Downloads lie in the hub's own cache, where other programs find them. What bitinfer makes of them,
and a record of what it took, lie in the user's cache folder.
"""
