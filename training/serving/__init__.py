"""What answers questions about pictures: shipped inside every model package, as the package `serving`.

Nothing in here imports torch: a server is up in half a second and small.
"""
