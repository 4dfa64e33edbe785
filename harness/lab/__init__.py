"""Putting a run together: images and builds gathered, a host opened, devices assigned."""
