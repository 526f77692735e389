"""Methods side by side: which cells a matrix has, how one is run, and all of them."""
