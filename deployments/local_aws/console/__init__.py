"""The console of the local AWS: its pages, server-rendered, for who would rather look than read."""
