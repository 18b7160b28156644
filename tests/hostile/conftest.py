"""Programs of the corpus are data here: whatever they are named, nothing on this machine imports them."""

collect_ignore = ["programs"]
