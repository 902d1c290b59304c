"""Builds the two images, and pushes them to the local cluster's registry or to one of yours."""
