"""One file a verb: each joins the rooms and prints nothing."""
